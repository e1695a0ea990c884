//! The certificate authorities of a private cloud, as PEM. Pure.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::endpoint::EndpointError;

/// Certificates of authorities, at least one. A request that carries them among its extensions is sent only to a server with a
/// certificate of theirs.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Authorities(Arc<str>);

impl Authorities {
    /// Reads certificates in PEM.
    pub(super) fn parse(pem: &str) -> Result<Self, EndpointError> {
        let read: Result<Vec<CertificateDer<'_>>, _> =
            CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        match read {
            Ok(certificates) if !certificates.is_empty() => Ok(Self(pem.into())),
            Ok(_) | Err(_) => Err(EndpointError {
                field: "endpoints.caBundle",
                problem: "must hold certificates",
                expected: "the PEM text of the authorities, each between -----BEGIN CERTIFICATE----- and -----END CERTIFICATE-----",
            }),
        }
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
