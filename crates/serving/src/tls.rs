//! TLS from PEM files, with `rustls` and the `ring` provider, which is named here and nowhere taken from the process:
//! TLS 1.3, and TLS 1.2 only if the settings ask for it; nothing older.
//!
//! Certificates end and are renewed while the server runs. New files are taken on a reload, or when they have changed
//! and then stood still; files that do not hold leave those in use where they are.

use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use provenance::Digest;
use provenance::digest::sha256;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use crate::certificate_dates::{Validity, validity};
use crate::error::ServingError;
use crate::live::Live;
use crate::settings::{ClientCertificates, TlsSettings, TlsVersion};

/// What clients that speak HTTP/2 ask for (ALPN).
pub const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// The certificate in use, and where it came from.
pub struct Certificates {
    live: Live<InUse>,
    watched: Mutex<Watched>,
}

struct InUse {
    config: Arc<ServerConfig>,
    validity: Option<Validity>,
    /// Digest of all its files: whether others are new.
    files: Digest,
}

/// The files as they were last seen.
struct Watched {
    settings: TlsSettings,
    /// What is in use, or was refused, came from these.
    taken: Vec<Option<Stamp>>,
    /// As they stood at the last look.
    seen: Vec<Option<Stamp>>,
}

/// What changes when a file is written or replaced.
#[derive(Clone, Debug, PartialEq)]
struct Stamp {
    path: PathBuf,
    modified: Option<SystemTime>,
    length: u64,
}

/// What a look at the files found.
#[derive(Debug)]
pub enum Look {
    Unchanged,
    /// New certificates are in use.
    Taken,
    /// The new files do not hold; what was in use still is.
    Refused(ServingError),
}

impl Certificates {
    /// Reads chain and key, and checks that they belong together.
    pub fn load(settings: &TlsSettings) -> Result<Certificates, ServingError> {
        let stamps = stamps(settings);
        let in_use = read(settings)?;
        let watched = Watched { settings: settings.clone(), taken: stamps.clone(), seen: stamps };
        Ok(Certificates { live: Live::new(in_use), watched: Mutex::new(watched) })
    }

    /// What new connections are accepted with.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.live.get().config.clone()
    }

    /// From when to when the certificate is valid; `None` if it does not say so in a way that is understood.
    pub fn validity(&self) -> Option<Validity> {
        self.live.get().validity
    }

    /// Takes the files of these settings, whether they changed or not, and tells whether something else stands in them than
    /// before; on an error nothing changes.
    pub fn reload(&self, settings: &TlsSettings) -> Result<bool, ServingError> {
        let mut watched = self.watched();
        let stamps = stamps(settings);
        let is_new = self.take(read(settings)?);
        *watched = Watched { settings: settings.clone(), taken: stamps.clone(), seen: stamps };
        Ok(is_new)
    }

    /// Takes the files if they have changed and stood still since the last look: who replaces two files does not do so
    /// in one moment.
    pub fn look(&self) -> Look {
        let mut watched = self.watched();
        let now = stamps(&watched.settings);
        let stands_still = now == watched.seen;
        watched.seen.clone_from(&now);
        if !stands_still || now == watched.taken {
            return Look::Unchanged;
        }
        watched.taken = now;
        match read(&watched.settings) {
            Ok(in_use) => match self.take(in_use) {
                true => Look::Taken,
                // Written anew, as they were.
                false => Look::Unchanged,
            },
            Err(error) => Look::Refused(error),
        }
    }

    /// Puts these in use; whether their files hold something else than those before.
    fn take(&self, in_use: InUse) -> bool {
        let is_new = self.live.get().files != in_use.files;
        self.live.replace(in_use);
        is_new
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether chain and key can be read and belong together, and from when to when the certificate is valid, where it says
/// so in a way that is understood.
pub fn check_certificates(settings: &TlsSettings) -> Result<Option<Validity>, ServingError> {
    read(settings).map(|in_use| in_use.validity)
}

/// Every file that the settings name.
fn files(settings: &TlsSettings) -> impl Iterator<Item = &PathBuf> {
    let own = [&settings.certificate, &settings.private_key];
    own.into_iter().chain(&settings.client_ca).chain(&settings.client_crls)
}

fn stamps(settings: &TlsSettings) -> Vec<Option<Stamp>> {
    let stamp = |path: &PathBuf| {
        let of = |metadata: Metadata| Stamp {
            path: path.clone(),
            modified: metadata.modified().ok(),
            length: metadata.len(),
        };
        std::fs::metadata(path).ok().map(of)
    };
    files(settings).map(stamp).collect()
}

/// Files, each read once: what is parsed, and what later files are compared with, are the same bytes, also where a file is
/// written anew meanwhile.
#[derive(Default)]
struct Files {
    /// Of those that were read, one behind the other.
    digests: String,
}

impl Files {
    fn read(&mut self, path: &Path) -> Result<Vec<u8>, ServingError> {
        let bytes = std::fs::read(path).map_err(|error| trouble(path, error.to_string()))?;
        self.digests.push_str(&sha256(&bytes).to_string());
        Ok(bytes)
    }

    /// One digest of what stood in all of them, each told from the next.
    fn digest(&self) -> Digest {
        sha256(self.digests.as_bytes())
    }
}

fn read(settings: &TlsSettings) -> Result<InUse, ServingError> {
    let mut files = Files::default();
    let chain = certificates(&settings.certificate, &files.read(&settings.certificate)?)?;
    let validity = chain.first().and_then(|certificate| validity(certificate));
    let config = server_config(settings, chain, &mut files)?;
    Ok(InUse { config, validity, files: files.digest() })
}

/// Certificates of a PEM file.
pub fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, ServingError> {
    certificates(path, &Files::default().read(path)?)
}

/// Certificates in what a PEM file holds.
fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ServingError> {
    let chain = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| trouble(path, format!("expected certificates in PEM: {error}")))?;
    if chain.is_empty() {
        return Err(trouble(path, "expected at least one certificate in PEM, found none".to_string()));
    }
    Ok(chain)
}

fn server_config(
    settings: &TlsSettings,
    chain: Vec<CertificateDer<'static>>,
    files: &mut Files,
) -> Result<Arc<ServerConfig>, ServingError> {
    let verifier = client_verifier(settings, files)?;
    let path = &settings.private_key;
    let key = PrivateKeyDer::from_pem_slice(&files.read(path)?)
        .map_err(|error| trouble(path, format!("expected a private key in PEM: {error}")))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions(settings.minimum))
        .map(|builder| match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        })
        .and_then(|builder| builder.with_single_cert(chain, key))
        .map_err(|error| trouble(path, format!("certificate and key do not work together: {error}")))?;
    config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
    Ok(Arc::new(config))
}

/// What the certificates of clients are checked with, if they are asked for.
fn client_verifier(
    settings: &TlsSettings,
    files: &mut Files,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, ServingError> {
    let Some(path) = &settings.client_ca else { return Ok(None) };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, &files.read(path)?)? {
        roots.add(certificate).map_err(|error| trouble(path, format!("no certificate to trust: {error}")))?;
    }
    let mut lists = Vec::new();
    for path in &settings.client_crls {
        let pem = files.read(path)?;
        let read = CertificateRevocationListDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
        lists.extend(
            read.map_err(|error| trouble(path, format!("expected revocation lists in PEM: {error}")))?,
        );
    }
    let provider = Arc::new(ring::default_provider());
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if !lists.is_empty() {
        builder = builder.with_crls(lists).only_check_end_entity_revocation().enforce_revocation_expiration();
    }
    if settings.client_certificates != ClientCertificates::Required {
        builder = builder.allow_unauthenticated();
    }
    let built = builder.build();
    built.map(Some).map_err(|error| trouble(path, format!("clients cannot be checked with it: {error}")))
}

fn versions(minimum: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static BOTH: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];
    match minimum {
        TlsVersion::Tls13 => &BOTH[..1],
        TlsVersion::Tls12 => &BOTH,
    }
}

fn trouble(path: &Path, problem: String) -> ServingError {
    ServingError::Tls { path: path.to_path_buf(), problem }
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::*;

    /// Each path is a pipe until it is opened, and another file from then on.
    #[test]
    fn every_file_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let own = rcgen::generate_simple_self_signed(vec!["localhost".to_string()]).unwrap();
        let pipe = |name: &str, text: String| {
            let path = folder.path().join(name);
            let other = path.with_extension("other");
            std::fs::write(&other, "no PEM at all").unwrap();
            assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
            let at = path.clone();
            std::thread::spawn(move || {
                // Waits for the reader.
                let mut writing = File::options().write(true).open(&at).unwrap();
                std::fs::rename(&other, &at).unwrap();
                writing.write_all(text.as_bytes()).unwrap();
            });
            path
        };
        let (certificate, key) = (own.cert.pem(), own.signing_key.serialize_pem());
        let mut settings = TlsSettings::new(pipe("chain", certificate.clone()), pipe("key", key.clone()));
        settings.client_ca = Some(pipe("clients", certificate.clone()));
        settings.client_certificates = ClientCertificates::Required;
        let found = read(&settings).unwrap();
        let digests = [&certificate, &certificate, &key].map(|text| sha256(text.as_bytes()).to_string());
        assert_eq!(found.files, sha256(digests.concat().as_bytes()));
        assert!(read(&settings).is_err(), "the other files");
    }
}
