//! Cloud endpoints: overrides parsed once, else the vendor's naming rule and its exceptions. Pure; resolves no names.

use std::fmt;

use url::{Host, Url};

use super::authorities::Authorities;
use super::id::Region;

/// The endpoints of one account. Defaults to the public endpoints of the cloud.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Endpoints {
    ecs: Option<EcsOverride>,
    sts: Option<Url>,
    authorities: Option<Authorities>,
}

/// The account's override of the ECS endpoint.
#[derive(Clone, PartialEq, Eq, Hash)]
enum EcsOverride {
    /// One URL for every region.
    Fixed(Url),
    /// One URL per region: a text with [`REGION`] in its host. It parses with every region in that place.
    PerRegion(String),
}

/// Placeholder in the host for the region of the call.
const REGION: &str = "{region}";

impl Endpoints {
    /// Parses the overrides of an account or a flag: a simulator, or endpoints inside a VPC. The host of `ecs` may contain
    /// `{region}` once. `http://` is accepted for the loopback interface only, unless `allow_insecure`.
    ///
    /// # Errors
    /// A text with more than scheme, host and port, or with a scheme that is not allowed.
    pub fn parse(
        ecs: Option<&str>,
        sts: Option<&str>,
        allow_insecure: bool,
    ) -> Result<Self, EndpointError> {
        Ok(Self {
            ecs: ecs
                .map(|text| parse_ecs(text, allow_insecure))
                .transpose()?,
            sts: sts
                .map(|text| parse("endpoints.sts", text, allow_insecure))
                .transpose()?
                .filter(|url| url.as_str() != STS),
            authorities: None,
        })
    }

    /// The same endpoints, of which only certificates of these authorities (PEM) are taken, for a private cloud.
    ///
    /// # Errors
    /// A text without certificates.
    pub fn with_authorities(mut self, pem: Option<&str>) -> Result<Self, EndpointError> {
        self.authorities = match pem {
            None => None,
            Some(pem) => Some(Authorities::parse(pem).ok_or(EndpointError {
                field: "endpoints.caBundle",
                problem: "must hold certificates",
                expected: "the PEM text of the authorities, each between -----BEGIN CERTIFICATE----- and -----END CERTIFICATE-----",
            })?),
        };
        Ok(self)
    }

    /// The authorities whose certificates are taken; `None` are those of the machine.
    #[must_use]
    pub fn authorities(&self) -> Option<&Authorities> {
        self.authorities.as_ref()
    }

    /// The ECS endpoint of a region.
    ///
    /// # Panics
    /// Never: a [`Region`] holds only characters allowed in a host name.
    #[must_use]
    pub fn ecs(&self, region: &Region) -> Url {
        let url = match &self.ecs {
            Some(EcsOverride::Fixed(url)) => return url.clone(),
            Some(EcsOverride::PerRegion(template)) => template.replace(REGION, region.as_str()),
            None => {
                let exception = ECS_EXCEPTIONS
                    .iter()
                    .find(|(name, _)| *name == region.as_str());
                exception.map_or_else(
                    || format!("https://ecs.{region}.aliyuncs.com/"),
                    |(_, host)| format!("https://{host}/"),
                )
            }
        };
        Url::parse(&url).expect("a region is lower-case letters, digits and single dashes")
    }

    /// Whether each region has a host of its own.
    #[must_use]
    pub fn differ_by_region(&self) -> bool {
        !matches!(self.ecs, Some(EcsOverride::Fixed(_)))
    }

    /// The STS endpoint, the same for every region.
    ///
    /// # Panics
    /// Never: the default is a constant.
    #[must_use]
    pub fn sts(&self) -> Url {
        self.sts
            .clone()
            .unwrap_or_else(|| Url::parse(STS).expect("the constant is a URL"))
    }
}

impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ecs = match &self.ecs {
            Some(EcsOverride::Fixed(url)) => url.as_str(),
            Some(EcsOverride::PerRegion(template)) => template,
            None => "default",
        };
        let sts = self.sts.as_ref().map_or("default", Url::as_str);
        write!(f, "Endpoints {{ ecs: {ecs}, sts: {sts} }}")
    }
}

/// Regions whose host does not follow `ecs.<region>.aliyuncs.com`. Source: `EndpointMap` of the vendor's Go SDK
/// (alibabacloud-go/ecs-20140526, client.go).
pub(super) const ECS_EXCEPTIONS: &[(&str, &str)] = &[
    ("cn-hangzhou", "ecs-cn-hangzhou.aliyuncs.com"),
    ("cn-shanghai-finance-1", "ecs-cn-hangzhou.aliyuncs.com"),
    ("cn-shenzhen-finance-1", "ecs-cn-hangzhou.aliyuncs.com"),
    ("cn-north-2-gov-1", "ecs.aliyuncs.com"),
    ("cn-hangzhou-finance", "ecs.aliyuncs.com"),
    ("cn-zhangjiakou-na62-a01", "ecs.cn-zhangjiakou.aliyuncs.com"),
];

const STS: &str = "https://sts.aliyuncs.com/";

/// Why a text is not an endpoint. Does not contain the text: it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}; it is {expected}")]
pub struct EndpointError {
    /// `endpoints.ecs` or `endpoints.sts`.
    pub field: &'static str,
    /// The problem, as a clause.
    pub problem: &'static str,
    /// What the field holds, as a clause.
    pub expected: &'static str,
}

const BASE_URL: &str =
    "a scheme, a host and, if needed, a port, such as https://ecs-vpc.cn-beijing.aliyuncs.com";

fn parse_ecs(text: &str, allow_insecure: bool) -> Result<EcsOverride, EndpointError> {
    let field = "endpoints.ecs";
    if !text.contains(REGION) {
        return parse(field, text, allow_insecure).map(EcsOverride::Fixed);
    }
    // A second placeholder is not replaced, and its braces are rejected below. The region must not decide whether the URL
    // parses.
    parse(
        field,
        &text.replacen(REGION, "cn-hangzhou", 1),
        allow_insecure,
    )?;
    if text.contains("xn--") {
        return Err(EndpointError {
            field,
            problem: "must not have {region} in an internationalized host",
            expected: BASE_URL,
        });
    }
    Ok(EcsOverride::PerRegion(text.to_owned()))
}

fn parse(field: &'static str, text: &str, allow_insecure: bool) -> Result<Url, EndpointError> {
    let refuse = |problem| {
        Err(EndpointError {
            field,
            problem,
            expected: BASE_URL,
        })
    };
    // Check before the URL parser, which silently repairs much of this (WHATWG): it drops tabs and turns backslashes into
    // slashes.
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) || text.contains('\\') {
        return refuse("must not hold characters that no URL has in its host");
    }
    let authority = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    let Some(authority) = authority else {
        return refuse("must start with https:// or http://");
    };
    if authority.contains('@') {
        return refuse("must not hold a user name or password");
    }
    // The URL parser accepts host characters that a request cannot carry (backquote, brace).
    if !authority
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]/?#".contains(&byte))
    {
        return refuse("must not hold characters that no URL has in its host");
    }
    if authority.contains(['/', '?', '#']) {
        return refuse("must not have a path, query, fragment or slash at the end");
    }
    match Url::parse(text) {
        Ok(url)
            if url.has_host()
                && url.path() == "/"
                && url.query().is_none()
                && url.fragment().is_none() =>
        {
            if url.scheme() == "https" || allow_insecure || is_loopback(&url) {
                Ok(url)
            } else {
                refuse(
                    "must be https://; http:// is for the loopback interface, or for an account with allowInsecure: true",
                )
            }
        }
        Ok(_) => refuse("must not have a path, query, fragment or slash at the end"),
        Err(_) => refuse("must have a host, and a port only of 0 to 65535"),
    }
}

/// Whether the host is this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ecs(region: &str) -> String {
        Endpoints::default()
            .ecs(&region.parse().unwrap())
            .to_string()
    }

    #[test]
    fn regions_have_the_vendors_hosts() {
        assert_eq!(ecs("cn-beijing"), "https://ecs.cn-beijing.aliyuncs.com/");
        assert_eq!(
            ecs("ap-southeast-1"),
            "https://ecs.ap-southeast-1.aliyuncs.com/"
        );
        assert_eq!(ecs("cn-hangzhou"), "https://ecs-cn-hangzhou.aliyuncs.com/");
        assert_eq!(
            ecs("cn-shenzhen-finance-1"),
            "https://ecs-cn-hangzhou.aliyuncs.com/"
        );
        assert_eq!(ecs("cn-north-2-gov-1"), "https://ecs.aliyuncs.com/");
        assert_eq!(
            ecs("cn-zhangjiakou-na62-a01"),
            "https://ecs.cn-zhangjiakou.aliyuncs.com/"
        );
        assert_eq!(
            Endpoints::default().sts().as_str(),
            "https://sts.aliyuncs.com/"
        );
        for (region, _) in ECS_EXCEPTIONS {
            region.parse::<Region>().unwrap();
        }
    }

    #[test]
    fn override_applies_to_every_region() {
        let endpoints = Endpoints::parse(
            Some("http://127.0.0.1:18080"),
            Some("https://sts-vpc.cn-beijing.aliyuncs.com"),
            false,
        )
        .unwrap();
        for region in ["cn-hangzhou", "cn-beijing"] {
            assert_eq!(
                endpoints.ecs(&region.parse().unwrap()).as_str(),
                "http://127.0.0.1:18080/"
            );
        }
        assert_eq!(
            endpoints.sts().as_str(),
            "https://sts-vpc.cn-beijing.aliyuncs.com/"
        );
    }

    #[test]
    fn region_in_the_host_is_the_region_of_the_call() {
        let parse = |ecs| Endpoints::parse(Some(ecs), None, false);
        let region = |name: &str| name.parse::<Region>().unwrap();
        let endpoints = parse("https://ecs.{region}.example.com:8443").unwrap();
        for name in ["cn-hangzhou", "us-east-1"] {
            assert_eq!(
                endpoints.ecs(&region(name)).as_str(),
                format!("https://ecs.{name}.example.com:8443/")
            );
        }
        for text in [
            "https://{region}.{region}.example.com",
            "https://{other}.example.com",
            "https://ecs.example.com:{region}",
            "https://ecs.example.com/{region}",
            "https://{region}.1",
            "https://xn--{region}.example.com",
            "http://{region}.example.com",
            "{region}",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        let sts = Endpoints::parse(None, Some("https://sts.{region}.example.com"), false);
        assert!(sts.is_err());
    }

    #[test]
    fn unencrypted_endpoint_must_be_loopback_or_allowed() {
        let parse = |text: &str, allowed| Endpoints::parse(Some(text), Some(text), allowed);
        for text in [
            "http://127.0.0.1:18080",
            "http://127.1.2.3",
            "http://[::1]:80",
            "http://localhost",
            "https://10.0.0.1",
        ] {
            assert!(parse(text, false).is_ok(), "{text}");
        }
        for text in [
            "http://10.0.0.1",
            "http://128.0.0.1",
            "http://[::2]",
            "http://simulator:18080",
            "http://localhost.example.com",
            "http://127.0.0.1.example.com",
        ] {
            let error = parse(text, false).unwrap_err().to_string();
            assert!(error.contains("must be https://"), "{error}");
            assert!(error.contains("allowInsecure"), "{error}");
            assert!(parse(text, true).is_ok(), "{text}");
        }
    }

    #[test]
    fn invalid_endpoint_is_rejected_and_not_echoed() {
        for text in [
            "",
            "ecs.aliyuncs.com",
            "ftp://canary",
            "HTTP://canary",
            "http://",
            "http:///canary",
            "https:canary",
            "http://canary:x",
            "http://canary:99999",
            "http://user:canary@host",
            "http://canary@",
            "http://host/canary",
            "http://host//",
            "https://host/",
            "http://host?canary",
            "http://host?",
            "http://host#",
            "http://host/#canary",
            "http://host\\canary",
            "http://ho st",
            "http://host\n",
            "\thttp://host",
            "http://hö",
            "http://host/?Action=DeleteInstance&canary",
            "http://[::1",
            "http://canary`.example",
            "http://{canary}",
            "http://canary$&'",
            "file:///canary",
        ] {
            let error = Endpoints::parse(None, Some(text), true).unwrap_err();
            assert!(error.to_string().starts_with("endpoints.sts "), "{text:?}");
            assert!(!format!("{error} {error:?}").contains("canary"), "{text:?}");
        }
    }
}
