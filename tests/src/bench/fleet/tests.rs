use super::*;
use super::{flood::FloodReport, meter::Part};
use crate::bench::Bench;
use clap::Parser;

fn options(words: &[&str]) -> Options {
    let words = ["bench", "fleet"].iter().chain(words);
    let Bench::Fleet(options) = crate::bench::Options::try_parse_from(words).unwrap().bench else {
        panic!("another bench")
    };
    options
}

fn seen() -> RunReport {
    RunReport {
        devices: 1000,
        broker: Broker::Embedded,
        store: Store::Sqlite,
        model_bytes: 1_000_000,
        enrolled_s: 5.0,
        connected_s: 1.0,
        converged_s: 3.0,
        server_cpu_s: 2.0,
        server_rss_bytes: 100 << 20,
        server_rss_bytes_per_device: 104_857,
        settled: Settled { sent: 5000, stored: 5000, duplicates: 0, stored_after_s: 0.5 },
        ingest_per_s: 20_000.0,
        acknowledged_p99_ms: 12.0,
        ingest: Used {
            seconds: 30.0,
            parts: vec![Part { part: "server", cpu_s: 30.0, processors: 1.0 }],
            server_threads: Vec::new(),
        },
        broker_only_per_s: Some(40_000.0),
        query_p99_ms: 80.0,
        queries: Vec::new(),
        queries_failed: 0,
    }
}

#[test]
fn sizes_are_those_of_the_mode_and_what_is_out_of_range_is_named() {
    assert_eq!(check(&options(&["--broker", "embedded", "--store", "sqlite"])).unwrap(), DEVICES);
    assert_eq!(options(&["--devices", "5,7"]).devices, [5, 7]);
    for (words, named) in [
        (["--devices", "0"], "--devices is 0"),
        (["--rate", "0"], "--rate is 0"),
        (["--seconds", "0"], "--seconds is 0"),
    ] {
        assert!(check(&options(&words)).unwrap_err().to_string().contains(named), "{named}");
    }
}

#[test]
fn a_lost_record_and_one_that_came_twice_make_a_report_bad() {
    let good = Report { runs: vec![seen()], ..Report::default() };
    assert!(good.is_good());
    let settled = seen().settled;
    for bad in [Settled { stored: 4999, ..settled }, Settled { duplicates: 1, ..settled }] {
        let bad = RunReport { settled: bad, ..seen() };
        assert!(!Report { runs: vec![seen(), bad], ..Report::default() }.is_good());
    }
}

#[test]
fn a_report_has_its_fields_and_its_table_the_ratio_to_the_broker_alone() {
    let json = serde_json::to_value(Report { runs: vec![seen()], ..Report::default() }).unwrap();
    let run = &json["runs"][0];
    for field in [
        "devices",
        "broker",
        "store",
        "converged_s",
        "server_cpu_s",
        "server_rss_bytes",
        "sent",
        "stored",
        "ingest_per_s",
        "broker_only_per_s",
        "query_p99_ms",
    ] {
        assert!(!run[field].is_null(), "{field}");
    }
    assert_eq!((run["broker"].as_str(), run["store"].as_str()), (Some("embedded"), Some("sqlite")));
    let text = table::runs(&[seen()]);
    assert!(text.contains("0.50") && text.contains("80 ms"), "{text}");
}

#[test]
fn a_flood_that_is_not_enough_names_what_stopped_it() {
    let flood = FloodReport {
        devices: 20_000,
        broker: Broker::Embedded,
        store: Store::Sqlite,
        connections_max: Some(19_000),
        enrolled_s: 100.0,
        reported_s: 40.0,
        server_rss_bytes: 1,
        steps: Vec::new(),
        best_per_s: 20_000.0,
        wanted_per_s: 30_000.0,
        is_enough: false,
        bottleneck: "the processor: 1.95 of 2 are used".to_owned(),
        functions: vec!["20 % memcpy".to_owned()],
        settled: Settled { sent: 1, stored: 1, duplicates: 0, stored_after_s: 0.0 },
    };
    let text = table::flood(&flood);
    for part in ["not enough", "the processor: 1.95 of 2", "19000 connections", "memcpy"] {
        assert!(text.contains(part), "{text}");
    }
}
