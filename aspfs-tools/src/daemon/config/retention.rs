//! Which versions stay readable, as it is configured.

use vefs::ve::Retention;

use super::ConfigError;
use crate::units;

/// `10m:all,1h:1m,…`: up to which age one version of how long a time stays.
pub fn parse_retention(text: &str) -> Result<Retention, ConfigError> {
    let bad = |why: String| ConfigError::Value { name: "retention", why };
    let seconds = |text: &str| match units::parse_duration(text) {
        Ok(ms) => i64::try_from(ms / 1000).map_err(|e| bad(e.to_string())),
        Err(e) => Err(bad(e.to_string())),
    };
    let mut steps: Vec<(i64, i64)> = Vec::new();
    for step in text.split(',') {
        let (age, every) =
            step.split_once(':').ok_or_else(|| bad(format!("{step:?} is not AGE:EVERY, like 1h:1m or 10m:all")))?;
        let every = if every.trim() == "all" { 0 } else { seconds(every)?.max(1) };
        let step = (seconds(age)?, every);
        if steps.last().is_some_and(|last| last.0 >= step.0 || last.1 > step.1) {
            return Err(bad("the steps must rise, in age and in what is left out".into()));
        }
        steps.push(step);
    }
    Ok(Retention { steps })
}

/// As [`parse_retention`] reads it.
pub(super) fn show_retention(retention: &Retention) -> String {
    let show = |secs: i64| units::show_duration(secs.unsigned_abs() * 1000);
    let step = |(age, every): &(i64, i64)| match every {
        0 => format!("{}:all", show(*age)),
        every => format!("{}:{}", show(*age), show(*every)),
    };
    retention.steps.iter().map(step).collect::<Vec<_>>().join(",")
}
