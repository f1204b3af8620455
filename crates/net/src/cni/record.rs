//! What DEL needs to know later, as JSON: the configuration that ADD used, its capability arguments and its result.

use std::sync::Arc;

use model::PodId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::conf::{self, NetworkList};
use crate::Error;

/// Everything about one pod's attachment.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) network: Arc<NetworkList>,
    /// Capability arguments by capability.
    pub(super) runtime: Map<String, Value>,
    /// The last plugin's result; `None`: ADD did not succeed.
    pub(super) result: Option<Value>,
}

/// Version 1. Fields are only ever added.
#[derive(Serialize, Deserialize)]
struct Written {
    version: u32,
    name: String,
    #[serde(rename = "cniVersion")]
    cni_version: String,
    plugins: Vec<Map<String, Value>>,
    runtime: Map<String, Value>,
    result: Option<Value>,
}

impl Record {
    pub(super) fn encode(&self, pod: PodId) -> Result<Vec<u8>, Error> {
        let written = Written {
            version: 1,
            name: self.network.name.clone(),
            cni_version: self.network.version.clone(),
            plugins: self.network.plugins.clone(),
            runtime: self.runtime.clone(),
            result: self.result.clone(),
        };
        serde_json::to_vec(&written).map_err(|source| Error::Record { pod, source })
    }

    pub(super) fn decode(pod: PodId, bytes: &[u8]) -> Result<Self, Error> {
        let wrong = |why: &str| Error::Record { pod, source: serde::de::Error::custom(why) };
        let written: Written = serde_json::from_slice(bytes).map_err(|source| Error::Record { pod, source })?;
        if written.version != 1 {
            return Err(wrong("unknown version"));
        }
        // It decides which programs run: what was written is checked as what was read at first.
        let list = Map::from_iter([
            ("cniVersion".to_owned(), Value::String(written.cni_version)),
            ("name".to_owned(), Value::String(written.name)),
            ("plugins".to_owned(), Value::Array(written.plugins.into_iter().map(Value::Object).collect())),
        ]);
        let bytes = serde_json::to_vec(&list).map_err(|source| Error::Record { pod, source })?;
        let network = conf::parse(&bytes).map_err(|why| wrong(&why))?;
        Ok(Self { network: Arc::new(network), runtime: written.runtime, result: written.result })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_stay_readable() {
        let golden = r#"{"version":1,"name":"n","cniVersion":"1.0.0","plugins":[{"mtu":9,"type":"bridge"}],"runtime":{"portMappings":[]},"result":{"ips":[]}}"#;
        let pod = PodId::from_bytes([1; 32]);
        let record = Record::decode(pod, golden.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(record.encode(pod).unwrap()).unwrap(), golden);
        for (from, to) in [("\"version\":1", "\"version\":2"), ("bridge", "../x"), ("{", "[")] {
            assert!(Record::decode(pod, golden.replacen(from, to, 1).as_bytes()).is_err(), "{to}");
        }
    }
}
