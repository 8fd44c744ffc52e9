use aspfs_replica::runtime::NamedBy;

use super::*;

fn with(change: impl FnOnce(&mut Settings)) -> Result<Config, ConfigError> {
    let mut settings = Settings { store: Some("/s".into()), ..Settings::default() };
    change(&mut settings);
    Config::new(settings)
}

#[test]
fn the_defaults_are_a_configuration_and_are_read_again() {
    let config = with(|_| ()).unwrap();
    assert_eq!(config.retention, Retention::default());
    assert_eq!(config.options.reserve, vefs::limits::RESERVE_BYTES);
    assert_eq!(config.tick.as_secs(), 1);
    let text = Settings::defaults().to_toml();
    assert_eq!(toml::from_str::<Settings>(&text).unwrap(), Settings::defaults(), "{text}");
    assert_eq!(reference().lines().count(), 2 + Settings::defaults().values().len());
}

#[test]
fn flags_win_over_the_file() {
    let file: Settings = toml::from_str("tick = \"2s\"\nlog = \"debug\"\n").unwrap();
    let both = Settings { tick: Some("3s".into()), ..Settings::default() }.over(file);
    assert_eq!((both.tick.as_deref(), both.log.as_deref(), both.store), (Some("3s"), Some("debug"), None));
}

#[test]
fn bad_values_are_named() {
    let said = |r: Result<Config, ConfigError>| r.unwrap_err().to_string();
    assert!(said(with(|s| s.tick = Some("1ms".into()))).starts_with("tick: "));
    assert!(said(with(|s| s.reserve = Some("much".into()))).starts_with("reserve: \"much\""));
    assert!(said(with(|s| s.connections = Some("0".into()))).starts_with("connections: "));
    assert!(said(with(|s| s.linger = Some("maybe".into()))).starts_with("linger: \"maybe\""));
    assert!(said(with(|s| s.log = Some("loud".into()))).starts_with("log: \"loud\""));
    assert!(said(with(|s| s.etcd = Some("https://a:2379".into()))).starts_with("etcd: \"https://a:2379\""));
    assert!(said(with(|s| s.lease = Some("100ms".into()))).starts_with("lease: "));
    assert!(said(with(|s| s.etcd_prefix = Some("aspfs/".into()))).starts_with("etcd-prefix: "));
    for bad in ["", "1h", "1h:1m,10m:all", "10m:1m,1h:all", "1h:often"] {
        assert!(said(with(|s| s.retention = Some(bad.into()))).starts_with("retention: "), "{bad}");
    }
    assert!(toml::from_str::<Settings>("tock = \"1s\"").is_err());
    assert!(matches!(Config::new(Settings::default()), Err(ConfigError::NoStore)));
}

#[test]
fn writers_are_named_by_whom_is_set() {
    let naming = with(|_| ()).unwrap().naming;
    assert_eq!((naming.by, naming.fail_over, naming.on_promotion), (NamedBy::People, false, None));
    let config = with(|s| s.etcd = Some("http://10.0.0.1:2379, http://10.0.0.2:2379/".into())).unwrap();
    let NamedBy::Etcd(arbiter) = config.naming.by else { panic!("no etcd") };
    assert_eq!(arbiter.servers, ["http://10.0.0.1:2379", "http://10.0.0.2:2379"]);
    assert_eq!((arbiter.prefix.as_str(), arbiter.lease.as_secs()), ("/aspfs", 10));
    let by_itself = |s: &mut Settings| {
        (s.writers, s.fail_over) = (Some("replicas".into()), Some("by-itself".into()));
        s.on_promotion = Some("/usr/local/sbin/start-ve".into());
    };
    let naming = with(by_itself).unwrap().naming;
    assert_eq!((naming.by, naming.fail_over), (NamedBy::Replicas(std::time::Duration::from_secs(10)), true));
    assert_eq!(naming.on_promotion.unwrap().to_str(), Some("/usr/local/sbin/start-ve"));
    let said = |change: fn(&mut Settings)| with(change).unwrap_err().to_string();
    assert!(said(|s| s.writers = Some("nobody".into())).starts_with("writers: \"nobody\""));
    assert!(said(|s| s.writers = Some("etcd".into())).starts_with("writers: no etcd"));
    assert!(
        said(|s| (s.writers, s.etcd) = (Some("replicas".into()), Some("http://a:1".into())))
            .starts_with("writers: either")
    );
    assert!(said(|s| s.fail_over = Some("by-itself".into())).starts_with("fail-over: people"));
    assert!(said(|s| s.fail_over = Some("soon".into())).starts_with("fail-over: \"soon\""));
    assert!(said(|s| s.on_promotion = Some("start".into())).starts_with("on-promotion: "));
}
