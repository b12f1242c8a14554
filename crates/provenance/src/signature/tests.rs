//! Signatures of the package `model-signing` are read (`tests/golden/`, written by `tools/oracles/check_signature.py`),
//! and whatever is altered, added, removed, swapped or bent is refused with a sentence that names it.

use super::*;
use crate::context::Silent;
use crate::storage::Storage;
use crate::tree::digest_tree;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

const FOLDER_SIGNATURE: &str = include_str!("../../tests/golden/folder.sig");

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// The files that the script signed.
fn model() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    for (name, text) in [
        ("config.json", "{}\n"),
        ("sub/βάρη.safetensors", "weights"),
        ("sub-b", "ħobż\n"),
        (".gitignore", "*.tmp\n"),
    ] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn judged(model: &Path, demand: &Demand<'_>) -> Result<Standing, String> {
    let tree = digest_tree(model, 2, &Silent).unwrap();
    assert_eq!(tree.problems, Vec::<String>::new());
    judge(model, &tree.files, demand).map_err(|error| error.to_string())
}

fn keys(folder: &Path, name: &str) -> SigningKey {
    let (private, public) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.pub.pem")));
    SigningKey::create(&private, &public, &Storage::disk()).unwrap()
}

fn sign(model: &Path, key: &SigningKey) {
    let files = digest_tree(model, 1, &Silent).unwrap().files;
    let signature = Signature::new("model", &files, key).unwrap();
    std::fs::write(default_place(model), signature.to_json()).unwrap();
}

#[test]
fn signatures_of_the_package_are_accepted_and_not_of_other_files() {
    let model = model();
    for (path, name) in [(".", "folder"), (".", "folder-p384"), ("sub-b", "file")] {
        let key = PublicKey::read(&golden(&format!("{name}.pub.pem"))).unwrap();
        let signature = golden(&format!("{name}.sig"));
        let keys = [key.clone()];
        let demand = Demand { signature: Some(&signature), keys: &keys, allow_unsigned: false };
        let signed = if path == "." { model.path().to_path_buf() } else { model.path().join(path) };
        assert_eq!(judged(&signed, &demand).unwrap(), Standing::SignedBy(key.fingerprint()), "{name}");
        assert_eq!(Signature::read(&signature).unwrap().stated_key(), Some(key.fingerprint().as_str()));
        std::fs::write(model.path().join("sub-b"), "ħobz\n").unwrap();
        let said = judged(&signed, &demand).unwrap_err();
        assert!(said.contains("sub-b was altered") && said.contains(&format!("{name}.sig")), "{said}");
        std::fs::write(model.path().join("sub-b"), "ħobż\n").unwrap();
    }
}

#[test]
fn our_statement_lists_what_the_package_lists() {
    let theirs = Signature::parse(FOLDER_SIGNATURE.as_bytes()).unwrap();
    let model = model();
    let keyring = tempfile::tempdir().unwrap();
    let key = keys(keyring.path(), "release");
    let files = digest_tree(model.path(), 1, &Silent).unwrap().files;
    let ours = Signature::new("model", &files, &key).unwrap();
    assert_eq!(ours.statement, theirs.statement);
    let parts = |signature: &Signature| -> Vec<Value> {
        let statement: Value = serde_json::from_slice(&signature.payload).unwrap();
        let of = |pointer: &str| statement.pointer(pointer).unwrap().clone();
        ["/_type", "/subject", "/predicateType", "/predicate/resources", "/predicate/serialization/method"]
            .map(of)
            .to_vec()
    };
    // The order of the list counts for the digest of the subject: `sub/…` before `sub-b`.
    assert_eq!(parts(&ours), parts(&theirs));
}

#[test]
fn what_was_signed_is_accepted_and_every_change_is_named() {
    let keyring = tempfile::tempdir().unwrap();
    let key = keys(keyring.path(), "release");
    let trusted = [key.public()];
    let demand = Demand { keys: &trusted, ..Demand::default() };
    let model = model();
    let path = |name: &str| model.path().join(name);
    let said = judged(model.path(), &demand).unwrap_err();
    assert!(said.contains("is not signed") && said.contains(short(&key.public().fingerprint())), "{said}");
    sign(model.path(), &key);
    let good = Standing::SignedBy(key.public().fingerprint());
    assert_eq!(judged(model.path(), &demand), Ok(good.clone()));
    assert!(
        judged(model.path(), &Demand::default())
            .is_ok_and(|standing| matches!(standing, Standing::Unchecked(Some(_))))
    );

    let refused = |expected: &str| {
        for demand in [demand, Demand::default(), Demand { allow_unsigned: true, ..demand }] {
            let said = judged(model.path(), &demand).unwrap_err();
            assert!(said.contains(expected), "expected {expected:?}: {said}");
        }
    };
    // A byte of the weights.
    std::fs::write(path("sub/βάρη.safetensors"), "weightr").unwrap();
    refused("sub/βάρη.safetensors was altered");
    std::fs::write(path("sub/βάρη.safetensors"), "weights").unwrap();
    // Files that changed places.
    std::fs::rename(path("sub-b"), path("kept")).unwrap();
    std::fs::rename(path("config.json"), path("sub-b")).unwrap();
    std::fs::rename(path("kept"), path("config.json")).unwrap();
    refused("config.json was altered");
    std::fs::rename(path("config.json"), path("kept")).unwrap();
    std::fs::rename(path("sub-b"), path("config.json")).unwrap();
    refused("sub-b is missing");
    std::fs::rename(path("kept"), path("sub-b")).unwrap();
    // One more.
    std::fs::write(path("sub/adapter_config.json"), "{}").unwrap();
    refused("sub/adapter_config.json was added");
    std::fs::remove_file(path("sub/adapter_config.json")).unwrap();
    assert_eq!(judged(model.path(), &demand), Ok(good));
    // What git and `eulalia pull` leave there is no part of the model.
    std::fs::create_dir(path(".git")).unwrap();
    std::fs::write(path(".git/HEAD"), "x").unwrap();
    std::fs::write(path("eulalia-source.json"), "{}").unwrap();
    judged(model.path(), &demand).unwrap();
}

#[test]
fn another_key_or_an_altered_signature_is_refused() {
    let keyring = tempfile::tempdir().unwrap();
    let (key, other) = (keys(keyring.path(), "release"), keys(keyring.path(), "other"));
    let model = model();
    sign(model.path(), &key);
    let others = [other.public()];
    let demand = Demand { keys: &others, ..Demand::default() };
    let said = judged(model.path(), &demand).unwrap_err();
    assert!(said.contains("none of the trusted ones") && said.contains("model.sig"), "{said}");
    assert!(matches!(
        judged(model.path(), &Demand { allow_unsigned: true, ..demand }),
        Ok(Standing::Unchecked(Some(_)))
    ));
    let both = [other.public(), key.public()];
    judged(model.path(), &Demand { keys: &both, ..demand }).unwrap();

    let place = model.path().join(SIGNATURE_FILE);
    let text = std::fs::read_to_string(&place).unwrap();
    let alter = |change: &dyn Fn(&mut Value)| {
        let mut bundle: Value = serde_json::from_str(&text).unwrap();
        change(&mut bundle);
        std::fs::write(&place, bundle.to_string()).unwrap();
        judged(model.path(), &Demand { keys: &both, ..Demand::default() })
    };
    let sig = |bundle: &mut Value, act: &dyn Fn(&mut Vec<u8>)| {
        let place = &mut bundle["dsseEnvelope"]["signatures"][0]["sig"];
        let mut bytes = STANDARD.decode(place.as_str().unwrap()).unwrap();
        act(&mut bytes);
        *place = json!(STANDARD.encode(bytes));
    };
    for position in [0, 4, 20, 68] {
        let said = alter(&|bundle| sig(bundle, &|bytes| bytes[position] ^= 1)).unwrap_err();
        assert!(said.contains("does not hold") && said.contains("model.sig"), "{said}");
    }
    // The signature's own word about its key gives nobody another key.
    let said = alter(&|bundle| {
        bundle["verificationMaterial"]["publicKey"]["hint"] = json!(other.public().fingerprint());
    });
    assert!(said.unwrap_err().contains("does not hold"));
    // Without a word each key is tried, and the right one found.
    let without = |bundle: &mut Value| bundle["verificationMaterial"]["publicKey"] = json!({});
    assert_eq!(alter(&without), Ok(Standing::SignedBy(key.public().fingerprint())));
    // The list bent to the altered file: the subject agrees again, the key does not.
    let files =
        |text: &str| BTreeMap::from([("config.json".to_string(), crate::digest::sha256(text.as_bytes()))]);
    let bent = Statement::new("model", &files("evil")).unwrap().to_json();
    let mut bundle: Value = serde_json::from_str(&text).unwrap();
    bundle["dsseEnvelope"]["payload"] = json!(STANDARD.encode(bent));
    let signature = Signature::parse(bundle.to_string().as_bytes()).unwrap();
    assert_eq!(signature.differences(model.path(), &place, &files("evil")), Vec::<String>::new());
    assert!(signature.trusted(&both).unwrap_err().contains("does not hold"));
    // That of another model by the same key.
    let another = model_of("other weights");
    sign(another.path(), &key);
    std::fs::copy(another.path().join(SIGNATURE_FILE), &place).unwrap();
    let said = judged(model.path(), &Demand { keys: &both, ..Demand::default() }).unwrap_err();
    assert!(said.contains("was altered"), "{said}");
}

fn model_of(weights: &str) -> tempfile::TempDir {
    let folder = model();
    std::fs::write(folder.path().join("sub/βάρη.safetensors"), weights).unwrap();
    folder
}

/// A bundle with this statement, whose subject agrees with its list.
fn bundle_of(resources: &Value, change: impl Fn(&mut Value)) -> Result<Signature, String> {
    let digests: Vec<u8> = resources
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|resource| {
            resource["digest"].as_str().unwrap().parse::<Digest>().map_or([0; 32], |digest| digest.0)
        })
        .collect();
    let mut statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "model", "digest": {"sha256": crate::digest::sha256(&digests)}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": false},
            "resources": resources,
        },
    });
    change(&mut statement);
    bundle_with(&statement.to_string())
}

fn bundle_with(payload: &str) -> Result<Signature, String> {
    let mut bundle: Value = serde_json::from_str(FOLDER_SIGNATURE).unwrap();
    bundle["dsseEnvelope"]["payload"] = json!(STANDARD.encode(payload));
    Signature::parse(bundle.to_string().as_bytes())
}

#[test]
fn hostile_lists_are_refused() {
    let digest = Digest::ZERO.to_string();
    let file = |name: &str| json!({"name": name, "algorithm": "sha256", "digest": digest});
    assert!(bundle_of(&json!([file("a"), file("b/c")]), |_| {}).is_ok());
    assert!(bundle_of(&json!([file(".")]), |_| {}).is_ok());
    let names =
        ["../a", "/etc/passwd", "a/../b", "a//b", "a/", "", "a\\b", "a\0b", "./a", "a\nb", "b/.", ".."];
    for name in names {
        let said = bundle_of(&json!([file("a"), file(name)]), |_| {}).unwrap_err();
        assert!(said.contains("no path inside a model"), "{name:?}: {said}");
    }
    let said = bundle_of(&json!([file("a"), file(".")]), |_| {}).unwrap_err();
    assert!(said.contains("no path inside a model"), "{said}");
    let refused = |said: Result<Signature, String>, expected: &str| {
        let said = said.unwrap_err();
        assert!(said.contains(expected), "expected {expected:?}: {said}");
    };
    refused(bundle_of(&json!([file("a"), file("a")]), |_| {}), "twice");
    refused(bundle_of(&json!([]), |_| {}), "no file");
    let many: Vec<Value> = (0..100_001).map(|number| file(&number.to_string())).collect();
    refused(bundle_of(&json!(many), |_| {}), "at most 100000");
    let a = json!([file("a")]);
    refused(
        bundle_of(&a, |statement| statement["subject"][0]["digest"]["sha256"] = json!("0".repeat(64))),
        "contradicts",
    );
    refused(bundle_of(&a, |statement| statement["subject"] = json!([])), "subject");
    refused(bundle_of(&a, |statement| statement["_type"] = json!("x")), "_type");
    refused(bundle_of(&a, |statement| statement["predicateType"] = json!("x")), "predicateType");
    let of = |key: &str, value: &str| {
        bundle_of(&a, |statement| statement["predicate"]["serialization"][key] = json!(value))
    };
    refused(of("method", "shards"), "expected files, found shards");
    refused(of("hash_type", "blake3"), "expected sha256, found blake3");
    refused(bundle_of(&json!([{"name": "a", "algorithm": "md5", "digest": digest}]), |_| {}), "md5");
    refused(bundle_of(&json!([{"name": "a", "algorithm": "sha256", "digest": "00"}]), |_| {}), "64");
    refused(bundle_with("[[["), "no list of a model's files");
    refused(bundle_with(&"[".repeat(1 << 20)), "no list of a model's files");
    // A field that stands twice, of which two readers may take a different one.
    let twice = "{\"_type\": \"https://in-toto.io/Statement/v1\", \"_type\": \"x\"}";
    refused(bundle_with(twice), "duplicate field");
}

#[test]
fn hostile_bundles_are_refused() {
    let refused = |bytes: &[u8], expected: &str| {
        let said = Signature::parse(bytes).unwrap_err();
        assert!(said.contains(expected), "expected {expected:?}: {said}");
    };
    // Cut anywhere.
    for length in (0..FOLDER_SIGNATURE.trim_end().len()).step_by(7) {
        refused(&FOLDER_SIGNATURE.as_bytes()[..length], "is no signature");
    }
    // No byte changed makes a bundle that is taken for another one's list.
    let whole = Signature::parse(FOLDER_SIGNATURE.as_bytes()).unwrap();
    let key = PublicKey::read(&golden("folder.pub.pem")).unwrap();
    for place in 0..FOLDER_SIGNATURE.len() {
        let mut bytes = FOLDER_SIGNATURE.as_bytes().to_vec();
        bytes[place] ^= 1;
        if let Some(read) = Signature::parse(&bytes).ok().filter(|read| read.is_by(&key)) {
            assert_eq!(read.payload, whole.payload, "byte {place}");
        }
    }
    let altered = |pointer: &str, value: Value| {
        let mut bundle: Value = serde_json::from_str(FOLDER_SIGNATURE).unwrap();
        *bundle.pointer_mut(pointer).unwrap() = value;
        bundle.to_string().into_bytes()
    };
    refused(&altered("/mediaType", json!("application/json")), "mediaType");
    refused(&altered("/dsseEnvelope/payloadType", json!("text/plain")), "payloadType");
    refused(&altered("/dsseEnvelope/signatures", json!([])), "found 0");
    refused(&altered("/dsseEnvelope/signatures/0/sig", json!("?")), "Base64");
    refused(&altered("/dsseEnvelope/payload", json!("?")), "Base64");
    refused(&altered("/verificationMaterial", json!({"certificate": {"rawBytes": "AA=="}})), "certificate");
    refused(&altered("/verificationMaterial/publicKey/hint", json!("../../key")), "hint");
    refused("\u{feff}{}".as_bytes(), "is no signature");
    refused(&[0xff; 64], "is no signature");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(SIGNATURE_FILE);
    std::fs::write(&path, vec![b' '; (16 << 20) + 1]).unwrap();
    assert!(Signature::read(&path).unwrap_err().to_string().contains("more than 16 MiB"));
    assert!(Signature::read(folder.path()).unwrap_err().to_string().contains("is no file"));
}

#[test]
fn keys_are_made_once_for_their_owner_and_read_strictly() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (private, public) = (folder.path().join("k.pem"), folder.path().join("k.pub.pem"));
    let made = SigningKey::create(&private, &public, &Storage::disk()).unwrap();
    assert_eq!(private.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(PublicKey::read(&public).unwrap(), made.public());
    assert_eq!(SigningKey::read(&private).unwrap().public(), made.public());
    let before = std::fs::read(&private).unwrap();
    let again = |private: &Path, public: &Path| {
        SigningKey::create(private, public, &Storage::disk()).err().unwrap().to_string()
    };
    assert!(again(&private, &folder.path().join("new.pub.pem")).contains("never overwritten"));
    assert!(again(&folder.path().join("new.pem"), &public).contains("never overwritten"));
    assert!(!folder.path().join("new.pem").exists());
    assert_eq!(std::fs::read(&private).unwrap(), before);

    let read = |text: &str| {
        let path = folder.path().join("x.pem");
        std::fs::write(&path, text).unwrap();
        (
            SigningKey::read(&path).err().map(|error| error.to_string()),
            PublicKey::read(&path).err().map(|error| error.to_string()),
        )
    };
    let says = |found: Option<String>, expected: &str| {
        let said = found.unwrap();
        assert!(said.contains(expected) && said.contains("x.pem"), "{said}");
    };
    says(read("-----BEGIN EC PRIVATE KEY-----\nAA==\n-----END EC PRIVATE KEY-----\n").0, "SEC 1");
    says(
        read("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----\n").0,
        "encrypted",
    );
    says(read(&made.public().pem()).0, "is a public key");
    says(read(&String::from_utf8(before).unwrap()).1, "expected a public key");
    says(read("").1, "expected a public key");
    // An Ed25519 key (RFC 8410), and a point that is not on the curve's list of forms.
    let ed25519 = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
                   -----END PUBLIC KEY-----\n";
    says(read(ed25519).1, "P-256 or P-384");
}
