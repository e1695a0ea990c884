//! Cloud endpoints: overrides parsed once, else the vendor's naming rule and its exceptions. Pure; resolves no names.

use std::fmt;

use url::Url;

use super::id::Region;

/// The endpoints of one account. Defaults to the public endpoints of the cloud.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Endpoints {
    ecs: Option<Url>,
    sts: Option<Url>,
}

impl Endpoints {
    /// Parses the account's overrides, which apply to every region: a simulator, or endpoints inside a VPC.
    ///
    /// # Errors
    /// A text with more than scheme, host and port.
    pub fn parse(ecs: Option<&str>, sts: Option<&str>) -> Result<Self, EndpointError> {
        Ok(Self {
            ecs: ecs.map(|text| parse("endpoints.ecs", text)).transpose()?,
            sts: sts.map(|text| parse("endpoints.sts", text)).transpose()?,
        })
    }

    /// The ECS endpoint of a region.
    ///
    /// # Panics
    /// Never: a [`Region`] holds only characters allowed in a host name.
    #[must_use]
    pub fn ecs(&self, region: &Region) -> Url {
        self.ecs.clone().unwrap_or_else(|| {
            let exception = ECS_EXCEPTIONS
                .iter()
                .find(|(name, _)| *name == region.as_str());
            let url = exception.map_or_else(
                || format!("https://ecs.{region}.aliyuncs.com/"),
                |(_, host)| format!("https://{host}/"),
            );
            Url::parse(&url).expect("a region is lower-case letters, digits and single dashes")
        })
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
        let text = |url: &Option<Url>| url.as_ref().map_or("default".to_owned(), Url::to_string);
        write!(
            f,
            "Endpoints {{ ecs: {}, sts: {} }}",
            text(&self.ecs),
            text(&self.sts)
        )
    }
}

/// Regions whose host does not follow `ecs.<region>.aliyuncs.com`. Source: `EndpointMap` of the vendor's Go SDK
/// (alibabacloud-go/ecs-20140526, client.go).
const ECS_EXCEPTIONS: &[(&str, &str)] = &[
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
#[error(
    "{field} {problem}: write http:// or https://, a host and, if needed, a port, such as https://ecs-vpc.cn-beijing.aliyuncs.com"
)]
pub struct EndpointError {
    /// `endpoints.ecs` or `endpoints.sts`.
    pub field: &'static str,
    /// The problem, as a clause.
    pub problem: &'static str,
}

fn parse(field: &'static str, text: &str) -> Result<Url, EndpointError> {
    let refuse = |problem| Err(EndpointError { field, problem });
    // Check before the URL parser, which silently repairs much of this (WHATWG): it drops tabs and turns backslashes into
    // slashes.
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) || text.contains('\\') {
        return refuse("holds a character that no endpoint has");
    }
    let authority = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    let Some(authority) = authority else {
        return refuse("does not start with http:// or https://");
    };
    if authority.contains('@') {
        return refuse("holds a user name or password");
    }
    // The URL parser accepts host characters that a request cannot carry (backquote, brace).
    if !authority
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]/?#".contains(&byte))
    {
        return refuse("holds a character that no endpoint has");
    }
    if authority.trim_end_matches('/').contains(['/', '?', '#']) || authority.ends_with("//") {
        return refuse("has a path, query or fragment");
    }
    match Url::parse(text) {
        Ok(url)
            if url.has_host()
                && url.path() == "/"
                && url.query().is_none()
                && url.fragment().is_none() =>
        {
            Ok(url)
        }
        Ok(_) => refuse("has a path, query or fragment"),
        Err(_) => refuse("names no host, or a port that is none"),
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
            Some("https://sts-vpc.cn-beijing.aliyuncs.com/"),
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
        assert!(Endpoints::parse(Some("http://[::1]:80"), None).is_ok());
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
            let error = Endpoints::parse(None, Some(text)).unwrap_err();
            assert!(error.to_string().starts_with("endpoints.sts "), "{text:?}");
            assert!(!format!("{error} {error:?}").contains("canary"), "{text:?}");
        }
    }
}
