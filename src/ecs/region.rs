//! The regions that this version knows. Pure: data.

use super::id::Region;

/// Region IDs of the vendor's public and special regions. A region that is not here works like the others once it has answered;
/// only its name is no label of a metric.
pub(crate) const KNOWN: &[&str] = &[
    "ap-northeast-1",
    "ap-northeast-2",
    "ap-south-1",
    "ap-southeast-1",
    "ap-southeast-2",
    "ap-southeast-3",
    "ap-southeast-5",
    "ap-southeast-6",
    "ap-southeast-7",
    "ap-southeast-8",
    "cn-beijing",
    "cn-beijing-finance-1",
    "cn-chengdu",
    "cn-fuzhou",
    "cn-guangzhou",
    "cn-hangzhou",
    "cn-hangzhou-finance",
    "cn-heyuan",
    "cn-heyuan-acdr-1",
    "cn-hongkong",
    "cn-huhehaote",
    "cn-nanjing",
    "cn-north-2-gov-1",
    "cn-qingdao",
    "cn-shanghai",
    "cn-shanghai-finance-1",
    "cn-shenzhen",
    "cn-shenzhen-finance-1",
    "cn-wuhan-lr",
    "cn-wulanchabu",
    "cn-zhangjiakou",
    "cn-zhangjiakou-na62-a01",
    "cn-zhengzhou-jva",
    "cn-zhongwei",
    "eu-central-1",
    "eu-west-1",
    "eu-west-2",
    "me-central-1",
    "me-east-1",
    "na-south-1",
    "us-east-1",
    "us-southeast-1",
    "us-west-1",
];

impl Region {
    /// The region's name, if this version knows the region: then it is none of a user's own texts.
    #[must_use]
    pub fn known_name(&self) -> Option<&'static str> {
        let found = KNOWN.binary_search(&self.as_str()).ok()?;
        KNOWN.get(found).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ecs::endpoint::ECS_EXCEPTIONS;

    #[test]
    fn every_known_region_is_found_and_no_other() {
        let name = |text: &str| text.parse::<Region>().unwrap().known_name();
        for known in KNOWN {
            assert_eq!(name(known), Some(*known));
        }
        for (region, _) in ECS_EXCEPTIONS {
            assert_eq!(name(region), Some(*region), "it has a host of its own");
        }
        for other in ["cn-hangzhou-1", "xx-1", "cn-other"] {
            assert_eq!(name(other), None);
        }
    }
}
