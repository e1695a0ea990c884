//! Serializes answers as JSON and XML from one value. Pure.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use quick_xml::escape::escape;
use serde_json::{Map, Value, json};

use super::error::ErrorResponse;

/// JSON or XML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Xml,
}

/// The answer of a successful call: its fields and a request ID.
#[must_use]
pub fn success(format: Format, action: &str, fields: Value, request_id: &str) -> Response<Bytes> {
    let mut fields = match fields {
        Value::Object(fields) => fields,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Map::new()
        }
    };
    fields.insert("RequestId".to_owned(), request_id.into());
    response(
        200,
        format,
        &format!("{action}Response"),
        &Value::Object(fields),
    )
}

/// The answer of a failed call.
#[must_use]
pub fn failure(
    format: Format,
    product: &str,
    host: &str,
    error: &ErrorResponse,
    request_id: &str,
) -> Response<Bytes> {
    let ErrorResponse {
        status,
        code,
        message,
        access_denied,
        headers,
    } = error;
    let mut fields = json!({
        "RequestId": request_id,
        "HostId": host,
        "Code": code,
        "Message": message,
        "Recommend": format!("https://api.aliyun.com/troubleshoot?q={code}&product={product}&requestId={request_id}"),
    });
    if let (Some(detail), Some(fields)) = (access_denied, fields.as_object_mut()) {
        fields.insert("AccessDeniedDetail".to_owned(), detail.clone());
    }
    let mut response = response(*status, format, "Error", &fields);
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(*name, value);
        }
    }
    response
}

/// An answer with any body.
#[must_use]
pub fn raw(status: u16, content_type: &'static str, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn response(status: u16, format: Format, root: &str, fields: &Value) -> Response<Bytes> {
    let mut response = match format {
        Format::Json => raw(
            status,
            "application/json;charset=utf-8",
            fields.to_string().into(),
        ),
        Format::Xml => {
            let mut xml = String::from("<?xml version='1.0' encoding='UTF-8'?>");
            write_xml(&mut xml, root, fields);
            raw(status, "text/xml;charset=utf-8", xml.into())
        }
    };
    if let Some(id) = fields
        .get("RequestId")
        .and_then(Value::as_str)
        .and_then(|id| HeaderValue::from_str(id).ok())
    {
        response.headers_mut().insert("x-acs-request-id", id);
    }
    response
}

/// Writes a list as one element per item, with the name of the list's own key, as the vendor does.
fn write_xml(xml: &mut String, name: &str, value: &Value) {
    let text = match value {
        Value::Array(items) => {
            for item in items {
                write_xml(xml, name, item);
            }
            return;
        }
        Value::Object(fields) => {
            xml.extend(["<", name, ">"]);
            for (name, value) in fields {
                write_xml(xml, name, value);
            }
            xml.extend(["</", name, ">"]);
            return;
        }
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    };
    let text = escape(text.as_str());
    xml.extend(["<", name, ">", &text, "</", name, ">"]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xml_matches_the_vendors_example() {
        let response = success(
            Format::Xml,
            "JoinSecurityGroup",
            json!({}),
            "473469C7-AA6F-4DC5-B3DB-A3DC0DE3C83E",
        );
        assert_eq!(
            response.body(),
            "<?xml version='1.0' encoding='UTF-8'?><JoinSecurityGroupResponse>\
             <RequestId>473469C7-AA6F-4DC5-B3DB-A3DC0DE3C83E</RequestId></JoinSecurityGroupResponse>"
        );
    }

    #[test]
    fn xml_lists_repeat_elements_and_text_is_escaped() {
        let rows =
            json!({"Instances": {"Instance": [{"InstanceName": "a<b&c"}, {"InstanceName": "d"}]}});
        let response = success(Format::Xml, "DescribeInstances", rows, "R");
        let body = String::from_utf8_lossy(response.body());
        assert!(body.contains("<Instances><Instance><InstanceName>a&lt;b&amp;c</InstanceName></Instance><Instance>"), "{body}");
    }
}
