//! Keys for one job, from the Security Token Service of a store: `AssumeRole` with a session policy.
//!
//! Keeps true: the keys open the prefix of the location and nothing else, whatever else the role may; nothing of the answer is taken
//! before it is known to be short and to make sense.

use std::time::Duration;

use futures::TryStreamExt;
use http::{Method, Request, header::CONTENT_TYPE};
use object_store::{
    aws::{AwsAuthorizer, AwsCredential},
    client::{HttpConnector, HttpError, HttpRequest, ReqwestConnector},
};
use serde::Deserialize;
use serde_json::json;

use crate::{Location, Unfit, store::options};

/// What is said of every failure.
const DOING: &str = "asking for keys of a job (AssumeRole)";
/// Version of the API: <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>.
const VERSION: &str = "2011-06-15";
/// Time limit of a call, and the longest answer, in bytes.
const PATIENCE: Duration = Duration::from_secs(10);
const LONGEST: usize = 64 * 1024;
/// Longest key or token, in bytes.
const LONGEST_KEY: usize = 16 * 1024;
/// Longest name of a session.
const LONGEST_NAME: usize = 64;

/// A role, and where it is assumed.
#[derive(Clone, Copy, Debug)]
pub struct Role<'a> {
    /// URL of the Security Token Service.
    pub endpoint: &'a str,
    /// Name of the role.
    pub arn: &'a str,
    /// Seconds for which the keys are wanted.
    pub seconds: u32,
}

/// The keys, with the time of their end as the service says it (RFC 3339).
pub struct Assumed {
    /// The location, with keys that open its prefix only.
    pub location: Location,
    /// RFC 3339.
    pub expiration: String,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "AssumeRoleResult")]
    result: Outcome,
}

#[derive(Deserialize)]
struct Outcome {
    #[serde(rename = "Credentials")]
    credentials: Credentials,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Credentials {
    access_key_id: String,
    secret_access_key: String,
    session_token: String,
    expiration: String,
}

/// Asks for keys that open the prefix of a location, with the keys of the location.
///
/// # Errors
/// What the service, or the network, said.
pub async fn assume(location: &Location, role: Role<'_>) -> Result<Assumed, Unfit> {
    let late = |_| failed(format!("HTTP error: no end within {} s", PATIENCE.as_secs()));
    let text = tokio::time::timeout(PATIENCE, asked(location, role)).await.map_err(late)??;
    let Credentials { access_key_id, secret_access_key, session_token, expiration } = read(&text)?;
    let keys = Location { access_key_id, secret_access_key, session_token: Some(session_token), ..location.clone() };
    Ok(Assumed { location: keys, expiration })
}

fn failed(detail: String) -> Unfit {
    Unfit::of(DOING, detail)
}

async fn asked(location: &Location, role: Role<'_>) -> Result<String, Unfit> {
    let store = |error: object_store::Error| Unfit::caused(DOING, &error);
    let broken = |error: HttpError| Unfit::caused(DOING, &error);
    let plain = role.endpoint.starts_with("http://");
    let options = options(plain, location.ca.as_deref()).map_err(store)?.with_timeout(PATIENCE);
    let client = ReqwestConnector::default().connect(&options).map_err(store)?;
    let answer = client.execute(request(location, role)?).await.map_err(broken)?;
    let status = answer.status();
    let (mut pieces, mut bytes) = (answer.into_body().bytes_stream(), Vec::new());
    while let Some(piece) = pieces.try_next().await.map_err(broken)? {
        bytes.extend_from_slice(&piece);
        if bytes.len() > LONGEST {
            return Err(failed(format!("the answer has more than {LONGEST} bytes")));
        }
    }
    let text = String::from_utf8(bytes).map_err(|_| failed("the answer is no text".to_owned()))?;
    if status.is_success() { Ok(text) } else { Err(failed(format!("{status}: {text}"))) }
}

fn request(location: &Location, role: Role<'_>) -> Result<HttpRequest, Unfit> {
    let name: String = location.prefix.rsplit('/').next().unwrap_or_default().chars().take(LONGEST_NAME).collect();
    let (seconds, policy) = (role.seconds.to_string(), policy(location));
    let form = form_urlencoded::Serializer::new(String::new())
        .extend_pairs([("Action", "AssumeRole"), ("Version", VERSION), ("RoleArn", role.arn)])
        .extend_pairs([("RoleSessionName", &name), ("DurationSeconds", &seconds), ("Policy", &policy)])
        .finish();
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("{}/", role.endpoint.trim_end_matches('/')))
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
    let mut request = request.body(form.into()).map_err(|error| failed(error.to_string()))?;
    let credential = AwsCredential {
        key_id: location.access_key_id.clone(),
        secret_key: location.secret_access_key.clone(),
        token: location.session_token.clone(),
    };
    let signed = AwsAuthorizer::new(&credential, "sts", &location.region).try_authorize(&mut request, None);
    signed.map_err(|error| Unfit::caused(DOING, &error))?;
    Ok(request)
}

/// What a mover needs, and no more.
fn policy(location: &Location) -> String {
    let (bucket, prefix) = (&location.bucket, &location.prefix);
    json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Resource": [format!("arn:aws:s3:::{bucket}/{prefix}/*")], "Action": ["s3:GetObject", "s3:PutObject",
            "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]},
        {"Effect": "Allow", "Resource": [format!("arn:aws:s3:::{bucket}")], "Action": ["s3:ListBucket"],
            "Condition": {"StringLike": {"s3:prefix": [format!("{prefix}/*")]}}},
    ]})
    .to_string()
}

fn read(text: &str) -> Result<Credentials, Unfit> {
    let answer = quick_xml::de::from_str::<Answer>(text);
    let Answer { result: Outcome { credentials } } =
        answer.map_err(|error| failed(format!("the answer cannot be read: {error}")))?;
    let Credentials { access_key_id, secret_access_key, session_token, expiration } = &credentials;
    let is_key =
        |text: &String| (1..=LONGEST_KEY).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if ![access_key_id, secret_access_key, session_token, expiration].into_iter().all(is_key) {
        return Err(failed("the answer has no keys that can be used".to_owned()));
    }
    Ok(credentials)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location() -> Location {
        let files = [
            ("endpoint", "https://s3.example.com"),
            ("bucket", "results"),
            ("prefix", "team/6f1c"),
            ("accessKeyId", "A"),
            ("secretAccessKey", "S"),
        ];
        Location::from_files(&files.map(|(file, text)| (file.to_owned(), text.to_owned())).into()).unwrap()
    }

    #[test]
    fn keys_of_a_job_open_its_prefix_and_nothing_beside() {
        let policy: serde_json::Value = serde_json::from_str(&policy(&location())).unwrap();
        let statements = policy["Statement"].as_array().unwrap();
        assert_eq!(statements[0]["Resource"], json!(["arn:aws:s3:::results/team/6f1c/*"]));
        assert_eq!(statements[1]["Condition"], json!({"StringLike": {"s3:prefix": ["team/6f1c/*"]}}));
        let actions: Vec<_> = statements.iter().flat_map(|one| one["Action"].as_array().unwrap()).collect();
        assert_eq!(actions.len(), 6);
        assert!(statements.iter().all(|one| one["Effect"] == "Allow") && !policy.to_string().contains("s3:*"));
    }

    #[test]
    fn a_request_is_signed_for_the_service_and_names_the_job() {
        let role = Role { endpoint: "https://sts.example.com/", arn: "arn:aws:iam::1:role/r", seconds: 900 };
        let request = request(&location(), role).unwrap();
        assert_eq!(request.uri(), "https://sts.example.com/");
        let signature = request.headers()["authorization"].to_str().unwrap();
        assert!(signature.contains("/us-east-1/sts/aws4_request"), "{signature}");
        let body = String::from_utf8(request.body().as_bytes().unwrap().to_vec()).unwrap();
        for pair in ["Action=AssumeRole", "RoleSessionName=6f1c", "DurationSeconds=900", "RoleArn=arn%3Aaws%3Aiam"] {
            assert!(body.contains(pair), "{pair}: {body}");
        }
    }

    /// An answer as the API reference shows it.
    const ANSWER: &str = r#"<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult>
        <SourceIdentity>x</SourceIdentity><AssumedRoleUser><Arn>arn:aws:sts::1:assumed-role/r/6f1c</Arn><AssumedRoleId>A:6f1c</AssumedRoleId></AssumedRoleUser>
        <Credentials><AccessKeyId>ASIA</AccessKeyId><SecretAccessKey>s/e+c</SecretAccessKey><SessionToken>t==</SessionToken>
        <Expiration>2019-07-15T23:28:33.359Z</Expiration></Credentials><PackedPolicySize>6</PackedPolicySize></AssumeRoleResult>
        <ResponseMetadata><RequestId>c6104cbe</RequestId></ResponseMetadata></AssumeRoleResponse>"#;

    #[test]
    fn an_answer_has_keys_or_is_refused() {
        let read = |text: &str| super::read(text).map(|keys| keys.session_token).map_err(|unfit| unfit.detail);
        assert_eq!(read(ANSWER), Ok("t==".to_owned()));
        assert!(read(&ANSWER.replace("ASIA", "")).is_err() && read(&ANSWER.replace("t==", "a b")).is_err());
        assert!(read("<AssumeRoleResponse/>").is_err() && read("no").is_err());
    }

    /// What is taken from an answer can be sent in headers and is not long.
    #[test]
    fn fuzz_assumed() {
        liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "assumed", |bytes| {
            let Ok(keys) = str::from_utf8(bytes).map_err(drop).and_then(|text| super::read(text).map_err(drop)) else {
                return;
            };
            assert!(
                http::HeaderValue::from_str(&keys.session_token).is_ok() && keys.access_key_id.len() <= LONGEST_KEY
            );
        });
    }
}
