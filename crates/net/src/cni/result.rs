//! What plugins answer: the result of ADD, and errors. Not trusted.

use std::net::IpAddr;

use serde::Deserialize;
use serde_json::Value;

use crate::{CniError, bridge::Subnet, network::POD_INTERFACE};

/// The most a plugin may write.
pub(super) const OUTPUT_MAX: usize = 1 << 20;
/// The most addresses of one pod.
const IPS_MAX: usize = 64;

/// What is taken from the result of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CniResult {
    /// The pod's addresses, at least one, the first one being the primary.
    pub ips: Vec<IpAddr>,
}

#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "cniVersion", default)]
    version: String,
    #[serde(default)]
    interfaces: Vec<RawInterface>,
    #[serde(default)]
    ips: Vec<RawIp>,
}

#[derive(Deserialize)]
struct RawInterface {
    #[serde(default)]
    name: String,
    #[serde(default)]
    sandbox: String,
}

#[derive(Deserialize)]
struct RawIp {
    address: String,
    interface: Option<i64>,
}

#[derive(Deserialize)]
struct RawError {
    code: u64,
    #[serde(default)]
    msg: String,
    #[serde(default)]
    details: String,
}

fn bad(why: String) -> CniError {
    CniError::BadResult(why)
}

/// Reads the result of a chain's last plugin (specification 0.3.0 to 1.1.0). Addresses count if they are said to be on
/// the pod's interface, or on none; if there are none of these, those on any interface in the pod.
pub fn parse_result(bytes: &[u8]) -> Result<CniResult, CniError> {
    if bytes.len() > OUTPUT_MAX {
        return Err(CniError::TooMuchOutput(OUTPUT_MAX));
    }
    let raw: Raw = serde_json::from_slice(bytes).map_err(|e| bad(e.to_string()))?;
    if !raw.version.is_empty()
        && !raw.version.starts_with("0.3.")
        && !raw.version.starts_with("0.4.")
        && !raw.version.starts_with("1.")
    {
        return Err(bad(format!("cniVersion {:?} is not known", cut(&raw.version, 40))));
    }
    if raw.ips.len() > IPS_MAX {
        return Err(bad(format!("{} addresses, more than {IPS_MAX}", raw.ips.len())));
    }
    let (mut ours, mut others) = (Vec::new(), Vec::new());
    for ip in &raw.ips {
        // The prefix must make sense, though only the address is used.
        let text = || cut(&ip.address, 80);
        ip.address.parse::<Subnet>().map_err(|_| bad(format!("{:?} is not an address with a prefix length", text())))?;
        let address: IpAddr = ip.address.split('/').next().unwrap_or_default().parse().map_err(|_| bad(text()))?;
        if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
            return Err(bad(format!("{address} cannot be a pod's address")));
        }
        match ip.interface {
            None => ours.push(address),
            Some(index) => {
                let interface = usize::try_from(index).ok().and_then(|index| raw.interfaces.get(index));
                let interface = interface.ok_or_else(|| bad(format!("{} is on interface {index}, which is not there", text())))?;
                match (interface.sandbox.is_empty(), interface.name == POD_INTERFACE) {
                    (false, true) => ours.push(address),
                    (false, false) => others.push(address),
                    (true, _) => {}
                }
            }
        }
    }
    let ips = if ours.is_empty() { others } else { ours };
    if ips.is_empty() {
        return Err(bad("no address for the pod".into()));
    }
    Ok(CniResult { ips })
}

/// The result of any plugin, to hand on to the next one: an object.
pub(super) fn parse_object(bytes: &[u8]) -> Result<Value, CniError> {
    let value: Value = serde_json::from_slice(bytes).map_err(|e| bad(e.to_string()))?;
    if value.is_object() { Ok(value) } else { Err(bad("not a JSON object".into())) }
}

/// Why a plugin failed, in its own words if it found any.
pub(super) fn parse_failure(status: String, stdout: &[u8], stderr: &[u8]) -> CniError {
    match serde_json::from_slice::<RawError>(stdout) {
        Ok(error) => {
            let message = [error.msg, error.details].into_iter().filter(|t| !t.is_empty()).collect::<Vec<_>>().join(": ");
            CniError::Reported { code: error.code, message: cut(&message, 1000) }
        }
        Err(_) => {
            let words = if stderr.is_empty() { stdout } else { stderr };
            let text = String::from_utf8_lossy(&words[..words.len().min(4000)]);
            let output = if text.trim().is_empty() { "no output".to_owned() } else { cut(text.trim(), 1000) };
            CniError::Failed { status, output }
        }
    }
}

/// At most this many characters, control characters made harmless: it ends up in logs and terminals.
fn cut(text: &str, most: usize) -> String {
    text.chars().take(most).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ips(text: &str) -> Vec<String> {
        parse_result(text.as_bytes()).unwrap_or_else(|e| panic!("{text}: {e}")).ips.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn addresses_of_the_pod_are_found() {
        assert_eq!(ips(r#"{"ips":[{"address":"10.0.0.2/24"},{"address":"fd00::2/64"}]}"#), ["10.0.0.2", "fd00::2"]);
        assert_eq!(
            ips(
                r#"{"cniVersion":"0.3.1","ips":[{"version":"4","address":"10.0.0.2/24","interface":0}],"interfaces":[{"name":"eth0","sandbox":"/x"}]}"#
            ),
            ["10.0.0.2"]
        );
        let several = r#"{"interfaces":[{"name":"br0"},{"name":"eth0","sandbox":"/x"},{"name":"net1","sandbox":"/x"}],
            "ips":[{"address":"10.9.0.1/24","interface":0},{"address":"10.8.0.1/24","interface":2},{"address":"10.7.0.1/24","interface":1}]}"#;
        assert_eq!(ips(several), ["10.7.0.1"]);
        assert_eq!(ips(&several.replace("eth0", "other")), ["10.8.0.1", "10.7.0.1"]);
    }

    #[test]
    fn results_that_cannot_be_used_are_refused() {
        for text in [
            "",
            "null",
            "{}",
            "[]",
            r#"{"ips":[]}"#,
            r#"{"ips":[{"address":"10.0.0.2"}]}"#,
            r#"{"ips":[{"address":"10.0.0.2/33"}]}"#,
            r#"{"ips":[{"address":"0.0.0.0/0"}]}"#,
            r#"{"ips":[{"address":"127.0.0.1/8"}]}"#,
            r#"{"ips":[{"address":"10.0.0.2/24","interface":0}]}"#,
            r#"{"ips":[{"address":"10.0.0.2/24","interface":-1}],"interfaces":[{"name":"eth0","sandbox":"x"}]}"#,
            r#"{"ips":[{"address":"10.0.0.2/24","interface":0}],"interfaces":[{"name":"eth0"}]}"#,
            r#"{"cniVersion":"7.0","ips":[{"address":"10.0.0.2/24"}]}"#,
            &format!(r#"{{"ips":[{}]}}"#, vec![r#"{"address":"10.0.0.2/24"}"#; 65].join(",")),
            &"[".repeat(100_000),
            &" ".repeat(OUTPUT_MAX + 1),
        ] {
            assert!(parse_result(text.as_bytes()).is_err(), "{}", cut(text, 100));
        }
    }

    #[test]
    fn failures_are_told_in_the_plugins_words() {
        let told = parse_failure("exit status: 1".into(), br#"{"code":11,"msg":"later","details":"no\u001b[31m lease"}"#, b"");
        assert_eq!(told.to_string(), "later: no [31m lease (code 11)");
        assert_eq!(parse_failure("exit status: 3".into(), b"oops", b"").to_string(), "exit status: 3: oops");
        assert_eq!(parse_failure("signal: 9".into(), b"", b"").to_string(), "signal: 9: no output");
    }

    proptest! {
        #[test]
        fn no_bytes_upset_the_parser(bytes: Vec<u8>) {
            let _ = parse_result(&bytes);
        }
    }
}
