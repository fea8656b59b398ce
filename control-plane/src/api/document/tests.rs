//! The document is whole, and agrees with the router.

use super::*;
use control_core::access;
use std::{fs, path::Path};

#[test]
fn every_reference_leads_somewhere_and_every_schema_is_used() {
    let document = document();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let known: BTreeSet<String> = schemas.keys().cloned().collect();
    let used = references(&document);
    assert_eq!(used.difference(&known).collect::<Vec<_>>(), Vec::<&String>::new());
    let unused: Vec<_> = known.difference(&used).filter(|name| *name != "Change").collect();
    assert!(unused.is_empty(), "{unused:?}");
    assert!(!document.to_string().contains(MARK));
}

#[test]
fn every_operation_says_who_may_use_it_and_what_it_answers() {
    let document = document();
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (verb, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id), "{id} is there twice");
            assert!(access::is_named(id), "{verb} {path}: control_core::access does not name {id}");
            assert!(operation["summary"].as_str().is_some_and(|summary| !summary.is_empty()), "{id}");
            assert!(operation["x-role"].is_string() && operation["tags"][0].is_string(), "{id}");
            let responses = operation["responses"].as_object().unwrap();
            let good = responses.keys().filter(|status| status.starts_with('2')).count();
            assert_eq!(good, 1, "{id}");
            assert!(responses.contains_key("500") && responses.len() > 1, "{id}");
            let described: BTreeSet<&str> = operation["parameters"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|parameter| parameter["in"] == "path")
                .map(|parameter| parameter["name"].as_str().unwrap())
                .collect();
            let varies: BTreeSet<&str> =
                path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
            assert_eq!(described, varies, "{id}");
        }
    }
}

#[test]
fn what_is_taken_and_given_in_two_forms_has_two_names() {
    let document = document();
    let schemas = &document["components"]["schemas"];
    // What is given always has its defaults; what is taken need not.
    let required = |name: &str| schemas[name]["required"].as_array().map_or(0, Vec::len);
    assert!(required("Policy") > required("PolicyInput"));
    assert_eq!(schemas["Policy"]["properties"]["waves"]["type"], "array");
    assert!(schemas["PolicyInput"]["properties"]["waves"]["anyOf"].is_array());
    assert_eq!(schemas["NewRollout"]["properties"]["policy"]["$ref"], "#/components/schemas/PolicyInput");
    assert_eq!(schemas["Rollout"]["properties"]["policy"]["$ref"], "#/components/schemas/Policy");
    for name in ["Device", "DeviceList", "Job", "Version", "Dataset", "Problem", "Session", "AuditEntryList"]
    {
        assert!(schemas[name].is_object(), "{name}");
    }
    assert_eq!(schemas["DeviceId"]["pattern"], shared::schema::NAME_PATTERN);
    assert_eq!(schemas["NewUser"]["additionalProperties"], false);
}

/// A route that is no operation would be in no document and behind no gate.
#[test]
fn nothing_but_operations_makes_routes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api");
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|kind| kind == "rs") && !path.ends_with("operation.rs") {
            let text = fs::read_to_string(&path).unwrap();
            assert!(!text.contains("Router::new()") && !text.contains(".route("), "{}", path.display());
        }
    }
}

#[test]
fn the_document_is_the_same_each_time() {
    assert_eq!(document(), document());
    let read: Value = serde_json::from_str(openapi()).unwrap();
    assert_eq!(read["openapi"], "3.1.0");
    assert_eq!(read["paths"]["/api/v1/devices"]["get"]["operationId"], "list_devices");
}
