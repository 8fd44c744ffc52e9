//! Sizes, durations and times as people write them, and as they are shown to people.
//!
//! Reading and showing agree: what is shown can be read again (a size may be rounded when shown). Nothing here reads a clock: the
//! present moment is an argument.

use vefs::clock::Timestamp;

/// Why a text is none of these.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a size.
    #[error("{0:?} is not a size: a number with K, M, G, T or P (powers of 1024), like 512M or 1.5G")]
    Size(String),
    /// Not a duration.
    #[error("{0:?} is not a duration: a number with ms, s, m, h or d, like 30s or 5m")]
    Duration(String),
    /// Not a time.
    #[error(
        "{0:?} is not a time: write `1 minute ago`, -60s, now, 2026-01-31T12:00:00Z, or a transaction number for a version"
    )]
    Time(String),
}

/// A decimal number with at most nine digits behind the point, times `unit`, rounded down; `None` when it does not fit.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || whole.len() > 20 || fraction.len() > 9 || !digits(whole) || !digits(fraction) {
        return None;
    }
    if number.contains('.') && fraction.is_empty() {
        return None;
    }
    let whole = u128::from(whole.parse::<u64>().ok()?) * u128::from(unit);
    let part = match fraction {
        "" => 0,
        f => f.parse::<u128>().ok()? * u128::from(unit) / 10u128.pow(f.len() as u32),
    };
    u64::try_from(whole + part).ok()
}

/// Where a number ends and its unit begins.
fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

/// Bytes: `10G`, `512M`, `1.5G`, `4096`, `2 GiB`; units are powers of 1024.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let bad = || UnitError::Size(shorten(text));
    let (number, unit) = split_unit(text.trim());
    let unit = unit.to_ascii_lowercase();
    let unit = unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(&unit);
    let power = match unit {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return Err(bad()),
    };
    scaled(number, 1 << power).ok_or_else(bad)
}

/// As [`parse_size`]; `none` or `unlimited` is no limit, `u64::MAX`.
pub fn parse_limit(text: &str) -> Result<u64, UnitError> {
    if is_unlimited(text) { Ok(u64::MAX) } else { parse_size(text) }
}

/// A count, with K, M … as powers of 1000; `none` or `unlimited` is no limit, `u64::MAX`.
pub fn parse_count(text: &str) -> Result<u64, UnitError> {
    if is_unlimited(text) {
        return Ok(u64::MAX);
    }
    let (number, unit) = split_unit(text.trim());
    let unit = match unit {
        "" => 1,
        "k" | "K" => 1000,
        "m" | "M" => 1_000_000,
        "g" | "G" => 1_000_000_000,
        _ => return Err(UnitError::Size(shorten(text))),
    };
    scaled(number, unit).ok_or_else(|| UnitError::Size(shorten(text)))
}

fn is_unlimited(text: &str) -> bool {
    matches!(text.trim(), "none" | "unlimited")
}

/// Milliseconds: `30s`, `5m`, `250ms`, `1.5h`, `2 days`; a bare number is seconds.
pub fn parse_duration(text: &str) -> Result<u64, UnitError> {
    let bad = || UnitError::Duration(shorten(text));
    let (number, unit) = split_unit(text.trim());
    let unit = match unit {
        "ms" | "millisecond" | "milliseconds" => 1,
        "" | "s" | "sec" | "second" | "seconds" => 1000,
        "m" | "min" | "minute" | "minutes" => 60_000,
        "h" | "hour" | "hours" => 3_600_000,
        "d" | "day" | "days" => 86_400_000,
        _ => return Err(bad()),
    };
    scaled(number, unit).ok_or_else(bad)
}

/// A moment: `now`, `1 minute ago`, `-60s`, or RFC 3339 (`2026-01-31T12:00:00Z`, `+02:00` and fractions allowed; a space may stand for
/// the T; without an offset it is UTC).
pub fn parse_time(text: &str, now: Timestamp) -> Result<Timestamp, UnitError> {
    let text = text.trim();
    if text == "now" {
        return Ok(now);
    }
    let ago = text.strip_suffix("ago").map(str::trim).or(text.strip_prefix('-'));
    let found = match ago {
        Some(ago) => parse_duration(ago).ok().and_then(|ms| before(now, ms)),
        None => rfc3339(text),
    };
    found.ok_or_else(|| UnitError::Time(shorten(text)))
}

fn before(now: Timestamp, ms: u64) -> Option<Timestamp> {
    let nanos = i128::from(now.secs) * 1_000_000_000 + i128::from(now.nanos) - i128::from(ms) * 1_000_000;
    Some(Timestamp {
        secs: i64::try_from(nanos.div_euclid(1_000_000_000)).ok()?,
        nanos: u32::try_from(nanos.rem_euclid(1_000_000_000)).ok()?,
    })
}

fn rfc3339(text: &str) -> Option<Timestamp> {
    if !text.is_ascii() || text.len() < 19 || text.len() > 40 {
        return None;
    }
    let number = |range: std::ops::Range<usize>| {
        let part = &text[range];
        part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse::<i64>().ok()).flatten()
    };
    let mark = |at: usize, allowed: &str| allowed.contains(char::from(text.as_bytes()[at]));
    let marks = [(4, "-"), (7, "-"), (10, "Tt "), (13, ":"), (16, ":")];
    if !marks.iter().all(|(at, allowed)| mark(*at, allowed)) {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let days = days_from_civil(year, month, day);
    if civil_from_days(days) != (year, month, day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let rest = &text[19..];
    let (nanos, zone) = match rest.strip_prefix('.') {
        Some(f) => {
            let end = f.find(|c: char| !c.is_ascii_digit()).unwrap_or(f.len());
            (scaled(&format!("0.{}", &f[..end]), 1_000_000_000)?, &f[end..])
        }
        None => (0, rest),
    };
    let secs = days * 86_400 + hour * 3600 + minute * 60 + second - offset(zone)?;
    Some(Timestamp { secs, nanos: u32::try_from(nanos).ok()? })
}

/// Seconds east of UTC.
fn offset(zone: &str) -> Option<i64> {
    if matches!(zone, "" | "Z" | "z") {
        return Some(0);
    }
    let sign = match zone.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    let two =
        |s: &str| (s.len() == 2 && s.bytes().all(|b| b.is_ascii_digit())).then(|| s.parse::<i64>().ok()).flatten();
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

/// RFC 3339 in UTC with milliseconds, `2026-01-31T12:00:00.123Z`.
pub fn show_time(at: Timestamp) -> String {
    // Beyond what four digits of a year can show: a file may have such a time, a version does not.
    let secs = at.secs.clamp(-62_135_596_800, 253_402_300_799);
    let (year, month, day) = civil_from_days(secs.div_euclid(86_400));
    let s = secs.rem_euclid(86_400);
    let ms = at.nanos / 1_000_000;
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{ms:03}Z", s / 3600, s / 60 % 60, s % 60)
}

/// Bytes with a unit, three significant digits: `1.50G`; `none` for no limit.
pub fn show_size(bytes: u64) -> String {
    if bytes == u64::MAX {
        return "none".into();
    }
    let units = ['K', 'M', 'G', 'T', 'P', 'E'];
    let power = (63 - bytes.max(1).leading_zeros()) / 10;
    let Some(unit) = power.checked_sub(1).and_then(|i| units.get(i as usize)) else { return format!("{bytes}") };
    let value = bytes as f64 / (1u64 << (10 * power)) as f64;
    let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.digits$}{unit}")
}

/// A count; `none` for no limit.
pub fn show_count(count: u64) -> String {
    if count == u64::MAX { "none".into() } else { count.to_string() }
}

/// Milliseconds with the largest unit that divides them.
pub fn show_duration(ms: u64) -> String {
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")];
    match units.iter().find(|(unit, _)| ms > 0 && ms.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", ms / unit),
        None if ms == 0 => "0s".into(),
        None => format!("{ms}ms"),
    }
}

/// Quoted in a message: enough to be recognised, and no more.
fn shorten(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("10G", 10 << 30),
            ("512M", 512 << 20),
            ("1.5G", 3 << 29),
            ("1.5g", 3 << 29),
            ("2 GiB", 2 << 30),
            ("64kb", 64 << 10),
            ("0.5K", 512),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for bad in
            ["", "G", "-1G", "+1", "1.G", ".5G", "1e9", "1GG", "16777216T", "99999999999999999999P", "0x10", "１G"]
        {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_limit("none"), Ok(u64::MAX));
        assert_eq!(parse_count("10k"), Ok(10_000));
        assert!(parse_count("10q").is_err());
    }

    #[test]
    fn sizes_are_shown_with_three_digits() {
        for (bytes, text) in [
            (0, "0"),
            (1023, "1023"),
            (1024, "1.00K"),
            (3 << 29, "1.50G"),
            (10 << 30, "10.0G"),
            (512 << 20, "512M"),
            (u64::MAX, "none"),
            (u64::MAX - 1, "16.0E"),
        ] {
            assert_eq!(show_size(bytes), text);
        }
    }

    #[test]
    fn durations() {
        for (text, ms) in
            [("30s", 30_000), ("5m", 300_000), ("250ms", 250), ("1.5h", 5_400_000), ("7d", 604_800_000), ("2", 2000)]
        {
            assert_eq!(parse_duration(text), Ok(ms), "{text}");
        }
        for (ms, text) in
            [(30_000, "30s"), (90_000, "90s"), (300_000, "5m"), (1500, "1500ms"), (0, "0s"), (86_400_000, "1d")]
        {
            assert_eq!(show_duration(ms), text);
            assert_eq!(parse_duration(text), Ok(ms));
        }
        assert!(
            parse_duration("5 fortnights").is_err() && parse_duration("").is_err() && parse_duration("-5s").is_err()
        );
    }

    #[test]
    fn times() {
        let now = Timestamp { secs: 1_000_000_000, nanos: 500_000_000 };
        let at = |secs, nanos| Ok(Timestamp { secs, nanos });
        assert_eq!(parse_time("now", now), Ok(now));
        assert_eq!(parse_time("1 minute ago", now), at(999_999_940, 500_000_000));
        assert_eq!(parse_time("-60s", now), at(999_999_940, 500_000_000));
        assert_eq!(parse_time("-750ms", now), at(999_999_999, 750_000_000));
        assert_eq!(parse_time("2001-09-09T01:46:40Z", now), at(1_000_000_000, 0));
        assert_eq!(parse_time("2001-09-09 03:46:40.25+02:00", now), at(1_000_000_000, 250_000_000));
        assert_eq!(parse_time("1969-12-31T23:59:59Z", now), at(-1, 0));
        assert_eq!(parse_time("2024-02-29T00:00:00Z", now), at(1_709_164_800, 0));
        for bad in [
            "",
            "yesterday",
            "ago",
            "-",
            "2023-02-29T00:00:00Z",
            "2024-13-01T00:00:00Z",
            "2024-01-01T24:00:00Z",
            "2024-01-01",
            "2024-01-01T00:00:00+2",
            "2024-01-01T00:00:00Zjunk",
            "99999999999999999d ago",
        ] {
            assert!(parse_time(bad, now).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_day_of_four_centuries_goes_there_and_back() {
        for days in -200_000..200_000 {
            let (y, m, d) = civil_from_days(days);
            assert_eq!(days_from_civil(y, m, d), days);
        }
    }

    #[test]
    fn shown_times_are_read_again() {
        for secs in [0, -1, 1_000_000_000, 253_402_300_799] {
            let at = Timestamp { secs, nanos: 123_000_000 };
            assert_eq!(parse_time(&show_time(at), at), Ok(at));
        }
        assert_eq!(show_time(Timestamp { secs: 1_000_000_000, nanos: 999_999_999 }), "2001-09-09T01:46:40.999Z");
    }
}
