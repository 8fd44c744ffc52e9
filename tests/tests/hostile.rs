//! Random and mutated golden bytes against every decoder, and against recovery (promise G29). The fuzz targets feed the
//! same functions for longer.

use aspfs_tests::hostile::TARGETS;
use aspfs_tests::opgen::Rng;
use aspfs_tests::{hostile_template, samples};

/// Inputs a target; ten times as many in the nightly run.
const INPUTS: u64 = 2000;

fn inputs() -> u64 {
    if std::env::var_os("ASPFS_NIGHTLY").is_some() { INPUTS * 10 } else { INPUTS }
}

fn random(rng: &mut Rng, max: u64) -> Vec<u8> {
    let len = rng.below(max + 1);
    (0..len).map(|_| rng.next_u64() as u8).collect()
}

/// Flips, cuts, repeats, and overwrites with numbers that decoders may trip over.
fn mutate(rng: &mut Rng, seed: &[u8]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..1 + rng.below(4) {
        let at = rng.below(bytes.len() as u64 + 1) as usize;
        match rng.below(6) {
            0 | 1 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
            2 => bytes.truncate(at),
            3 => bytes.insert(at, rng.pick(&[0, 1, 250, 251, 252, 253, 254, 255])),
            4 => {
                let number = rng.pick(&[0, u64::MAX, 1 << 60, u64::from(u32::MAX)]).to_le_bytes();
                let end = (at + 8).min(bytes.len());
                bytes[at..end].copy_from_slice(&number[..end - at]);
            }
            _ => bytes.extend_from_within(at..),
        }
    }
    bytes
}

fn run(names: &[&str]) {
    let stored = samples::encoded().into_iter().map(|(.., bytes)| bytes);
    let seeds: Vec<Vec<u8>> = stored.chain(hostile_template::seeds().into_iter().map(|(_, bytes)| bytes)).collect();
    for (name, target) in TARGETS.into_iter().filter(|(n, _)| names.contains(n)) {
        seeds.iter().for_each(|s| target(s));
        let mut rng = Rng::new(name.len() as u64);
        for n in 0..inputs() {
            let input = match n % 2 {
                0 => random(&mut rng, 600),
                _ => {
                    let seed = rng.below(seeds.len() as u64) as usize;
                    mutate(&mut rng, &seeds[seed])
                }
            };
            let caught = std::panic::catch_unwind(|| target(&input));
            assert!(caught.is_ok(), "{name}, input {n}: {input:02x?}");
        }
    }
}

/// checks G29
#[test]
fn decoders_take_anything() {
    run(&["base_tree", "codec", "extent_header", "frame", "identity", "key", "object", "segment_header", "superblock"]);
}

/// checks G29
#[test]
fn recovery_takes_any_journal() {
    run(&["journal", "segment_file"]);
}

/// A test that no hostile journal passes recovery would say nothing about what is applied.
#[test]
fn hostile_journals_are_applied_too() {
    let mut rng = Rng::new(7);
    let opened = (0..500).filter(|_| aspfs_tests::hostile::journal_opens(&random(&mut rng, 600))).count();
    assert!((100..450).contains(&opened), "{opened} of 500");
}

/// checks G29
#[test]
fn a_ve_takes_any_metadata() {
    run(&["metadata"]);
}

/// checks G29
#[test]
fn acls_take_anything() {
    run(&["acl"]);
}

/// checks G29. Half of the inputs come from what is meant for the target: the others hardly get anywhere.
#[test]
fn templates_take_anything() {
    run(&["template_label", "template_events", "template_tar"]);
    for (seed, bytes) in hostile_template::seeds() {
        let target: fn(&[u8]) = if seed == "tar" { hostile_template::tar } else { hostile_template::events };
        let mut rng = Rng::new(bytes.len() as u64);
        for n in 0..inputs() {
            let input = mutate(&mut rng, &bytes);
            let caught = std::panic::catch_unwind(|| target(&input));
            assert!(caught.is_ok(), "{seed}, input {n}: {input:02x?}");
        }
    }
}

#[test]
fn every_target_is_run() {
    let source = include_str!("hostile.rs");
    for (name, _) in TARGETS {
        assert!(source.contains(&format!("\"{name}\"")), "{name} is not run here");
    }
}
