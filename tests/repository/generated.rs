//! Files that are generated from the code are what the code says. `make manifests` writes them anew.

use std::path::PathBuf;

use security_group_operator::api;
use security_group_operator::telemetry::catalogue;

#[test]
fn committed_crds_match_the_code() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("crds");
    for (plural, crd) in api::crds() {
        let path = folder.join(format!("{}_{plural}.yaml", api::GROUP));
        let yaml = serde_saphyr::to_string(&crd).unwrap();
        let wanted = format!("# Generated from src/api by `make manifests`; do not edit.\n{yaml}");
        if std::env::var_os("REGENERATE").is_some() {
            std::fs::write(&path, &wanted).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == wanted,
            "{} is not what src/api says; run `make manifests`",
            path.display()
        );
    }
    // `kubectl apply -f crds/` takes whatever lies there.
    let files = std::fs::read_dir(&folder).unwrap().count();
    assert_eq!(
        files,
        api::crds().len(),
        "crds/ holds CRDs and nothing else"
    );
}

#[test]
fn committed_metrics_page_matches_the_code() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/reference/metrics.md");
    let wanted = catalogue::page();
    if std::env::var_os("REGENERATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &wanted).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == wanted,
        "{} is not what src/telemetry/catalogue.rs says; run `make manifests`",
        path.display()
    );
}
