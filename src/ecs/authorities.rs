//! The certificate authorities of a private cloud, as PEM. Pure.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// Certificates of authorities, at least one. A request that carries them among its extensions is sent only to a server with a
/// certificate of theirs.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Authorities(Arc<str>);

impl Authorities {
    /// Reads certificates in PEM; `None` if the text holds none, or something else.
    pub(super) fn parse(pem: &str) -> Option<Self> {
        let read: Result<Vec<CertificateDer<'_>>, _> =
            CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        let certificates = read.ok()?;
        (!certificates.is_empty()).then(|| Self(pem.into()))
    }

    /// The PEM text.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authorities({} bytes)", self.0.len())
    }
}
