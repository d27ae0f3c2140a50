//! The metrics of all sets, in the text format of Prometheus.
//!
//! All are made anew for each request, from what the target says at that moment: a set that has gone leaves nothing behind.

use std::time::Instant;

use prometheus::core::Collector;
use prometheus::{CounterVec, GaugeVec, Opts, Registry, Result, TextEncoder};

use super::families::{FAMILIES, Family, Kind};
use crate::rpc::look::Seen;
use crate::rpc::{Client, Failure};

/// What all names begin with.
const NAMESPACE: &str = "bdev_remap";
/// Who a set is: names can be those of several sets that wait.
const SET: [&str; 2] = ["set", "uuid"];
/// All states, of which a set is in one.
const STATES: [&str; 7] = ["online", "migrating", "degraded", "tripped", "waiting", "opening", "closing"];

/// The metrics. A target that does not answer is one of them.
///
/// # Errors
/// Those of encoding them.
pub(super) fn metrics(client: &Client) -> Result<String> {
    let began = Instant::now();
    let sets = client.look();
    let registry = Registry::new_custom(Some(NAMESPACE.to_owned()), None)?;
    about_target(&registry, &sets, began.elapsed().as_secs_f64())?;
    let sets = sets.unwrap_or_default();
    about_sets(&registry, &sets)?;
    for family in FAMILIES {
        add(&registry, family, &sets)?;
    }
    TextEncoder::new().encode_to_string(&registry.gather())
}

/// A metric that this registry has.
fn registered<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> Result<C> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn gauge(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec> {
    registered(registry, GaugeVec::new(Opts::new(name, help), labels)?)
}

fn about_target(registry: &Registry, sets: &std::result::Result<Vec<Seen>, Failure>, seconds: f64) -> Result<()> {
    let up = gauge(registry, "up", "Whether the target answers: 1 if it does.", &[])?;
    up.with_label_values::<&str>(&[]).set(f64::from(u8::from(sets.is_ok())));
    let took = gauge(registry, "scrape_duration_seconds", "How long the target took to say how its sets stand.", &[])?;
    took.with_label_values::<&str>(&[]).set(seconds);
    let build = gauge(registry, "exporter_build_info", "The version of remapctl, always 1.", &["version"])?;
    build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
    Ok(())
}

fn about_sets(registry: &Registry, sets: &[Seen]) -> Result<()> {
    let [set, uuid] = SET;
    let info = gauge(registry, "set_info", "The bdevs of a set, always 1.", &[set, uuid, "base_bdev", "spare_bdev"])?;
    let state = gauge(registry, "set_state", "Whether a set is in this state: 1 if it is.", &[set, uuid, "state"])?;
    for Seen { set, .. } in sets {
        let (name, uuid) = (set.name(), set.uuid().to_string());
        let (base, spare) = set.bdevs();
        info.with_label_values(&[name, &uuid, base.unwrap_or_default(), spare.unwrap_or_default()]).set(1.0);
        for one in STATES {
            state.with_label_values(&[name, &uuid, one]).set(f64::from(u8::from(set.state() == one)));
        }
    }
    Ok(())
}

fn add(registry: &Registry, family: &Family, sets: &[Seen]) -> Result<()> {
    let labels: Vec<_> = SET.into_iter().chain(family.label).collect();
    let options = Opts::new(family.name, family.help);
    let (gauge, counter) = match family.kind {
        Kind::Gauge => (Some(registered(registry, GaugeVec::new(options, &labels)?)?), None),
        Kind::Counter => (None, Some(registered(registry, CounterVec::new(options, &labels)?)?)),
    };
    for seen in sets {
        let Some(online) = seen.set.online() else { continue };
        let uuid = online.uuid.to_string();
        (family.of)(seen, online, &mut |value, number| {
            let values: Vec<&str> =
                [online.name.as_str(), &uuid].into_iter().chain(family.label.map(|_| value)).collect();
            if let Some(gauge) = &gauge {
                gauge.with_label_values(&values).set(number);
            } else if let Some(counter) = &counter {
                counter.with_label_values(&values).inc_by(number);
            }
        });
    }
    Ok(())
}
