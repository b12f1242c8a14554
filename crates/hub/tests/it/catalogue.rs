//! The catalogue as the program sees it.

use hub::Catalogue;

#[test]
fn the_families_that_europeans_run_are_there() {
    let catalogue = Catalogue::embedded();
    for family in [
        "eurollm",
        "apertus",
        "salamandra",
        "teuken",
        "viking",
        "poro-2",
        "mistral",
        "olmo-2",
        "olmo-3",
        "smollm3",
        "qwen3",
    ] {
        assert!(catalogue.models.iter().any(|model| model.name.starts_with(family)), "{family}");
    }
}
