//! TLS from PEM files, with `rustls` and the `ring` provider, which is named here and nowhere taken from the process:
//! TLS 1.3, and TLS 1.2 only if the settings ask for it; nothing older.
//!
//! Certificates end and are renewed while the server runs. New files are taken on a reload, or when they have changed
//! and then stood still; files that do not hold leave those in use where they are.

use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

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

    /// Takes the files of these settings, whether they changed or not; on an error nothing changes.
    pub fn reload(&self, settings: &TlsSettings) -> Result<(), ServingError> {
        let mut watched = self.watched();
        let stamps = stamps(settings);
        self.live.replace(read(settings)?);
        *watched = Watched { settings: settings.clone(), taken: stamps.clone(), seen: stamps };
        Ok(())
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
            Ok(in_use) => {
                self.live.replace(in_use);
                Look::Taken
            }
            Err(error) => Look::Refused(error),
        }
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

fn stamps(settings: &TlsSettings) -> Vec<Option<Stamp>> {
    let stamp = |path: &PathBuf| {
        let of = |metadata: Metadata| Stamp {
            path: path.clone(),
            modified: metadata.modified().ok(),
            length: metadata.len(),
        };
        std::fs::metadata(path).ok().map(of)
    };
    let own = [&settings.certificate, &settings.private_key];
    own.into_iter().chain(&settings.client_ca).chain(&settings.client_crls).map(stamp).collect()
}

fn read(settings: &TlsSettings) -> Result<InUse, ServingError> {
    let chain = read_chain(&settings.certificate)?;
    let validity = chain.first().and_then(|certificate| validity(certificate));
    Ok(InUse { config: server_config(settings, chain)?, validity })
}

/// Certificates of a PEM file.
pub fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, ServingError> {
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| trouble(path, format!("expected certificates in PEM: {error}")))?;
    if chain.is_empty() {
        return Err(trouble(path, "expected at least one certificate in PEM, found none".to_string()));
    }
    Ok(chain)
}

fn server_config(
    settings: &TlsSettings,
    chain: Vec<CertificateDer<'static>>,
) -> Result<Arc<ServerConfig>, ServingError> {
    let verifier = client_verifier(settings)?;
    let path = &settings.private_key;
    let key = PrivateKeyDer::from_pem_file(path)
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
fn client_verifier(settings: &TlsSettings) -> Result<Option<Arc<dyn ClientCertVerifier>>, ServingError> {
    let Some(path) = &settings.client_ca else { return Ok(None) };
    let mut roots = RootCertStore::empty();
    for certificate in read_chain(path)? {
        roots.add(certificate).map_err(|error| trouble(path, format!("no certificate to trust: {error}")))?;
    }
    let mut lists = Vec::new();
    for path in &settings.client_crls {
        let read = CertificateRevocationListDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>);
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
