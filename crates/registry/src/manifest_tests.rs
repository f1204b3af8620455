//! Documents good and bad (IM-06, IM-07).

use super::*;

const HEX: &str = "0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a";
const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn config() -> String {
    format!(r#"{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:{HEX}","size":2}}"#)
}

fn layer(more: &str) -> String {
    format!(r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:{HEX}","size":3{more}}}"#)
}

fn manifest(config: &str, layers: &str) -> String {
    format!(r#"{{"schemaVersion":2,"mediaType":"{OCI}","config":{config},"layers":[{layers}]}}"#)
}

fn read(text: &str, announced: &str) -> Result<Document, DocumentError> {
    let announced = (!announced.is_empty()).then(|| parse_media_type(announced));
    parse_manifest(text.as_bytes(), announced.as_ref())
}

#[test]
fn good_documents_are_read() {
    let Document::Image(image) = read(&manifest(&config(), &layer("")), OCI).unwrap() else { panic!() };
    assert_eq!((image.layers.len(), image.layers[0].size, image.config.size), (1, 3, 2));
    assert_eq!(image.layers[0].media_type, MediaType::OciLayerGzip);
    let entry = format!(
        r#"{{"mediaType":"{OCI}","digest":"sha256:{HEX}","size":9,"platform":{{"os":"unknown","architecture":"unknown"}},
            "annotations":{{"vnd.docker.reference.type":"attestation-manifest","x":"y"}}}},
           {{"mediaType":"{OCI}","digest":"sha256:{HEX}","size":9,"platform":{{"os":"linux","architecture":"arm","variant":"v7"}}}}"#
    );
    let Document::Index(index) = read(&format!(r#"{{"schemaVersion":2,"manifests":[{entry}]}}"#), INDEX).unwrap() else { panic!() };
    assert!(index.entries[0].attestation && !index.entries[1].attestation);
    assert_eq!(index.entries[1].platform.as_ref().unwrap().to_string(), "linux/arm/v7");
    // Zero layers are an image too; what a container of it gets is not the registry's matter.
    assert!(read(&manifest(&config(), ""), OCI).is_ok());
}

#[test]
fn ambiguous_documents_are_refused() {
    let config = config();
    let image = manifest(&config, &layer(""));
    let both = format!(r#"{{"schemaVersion":2,"mediaType":"{OCI}","config":{config},"layers":[],"manifests":[]}}"#);
    let untyped = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[]}}"#);
    for (text, announced, why) in [
        (both.as_str(), OCI, "both manifests and"),
        (both.as_str(), "", "both manifests and"),
        (image.as_str(), INDEX, "announced as"),
        (image.as_str(), "text/html", "neither an image manifest nor"),
        (untyped.as_str(), "", "neither mediaType nor Content-Type"),
        (untyped.as_str(), INDEX, "has no manifests"),
        (r#"{"schemaVersion":1,"fsLayers":[]}"#, "", "schema 1"),
        (r#"{"schemaVersion":2,"fsLayers":[]}"#, OCI, "schema 1"),
        ("{}", "application/vnd.docker.distribution.manifest.v1+prettyjws", "schema 1"),
        (r#"{"schemaVersion":3,"layers":[]}"#, OCI, "schemaVersion"),
        (r#"{"schemaVersion":2,"schemaVersion":2}"#, OCI, "not a well-formed"),
        ("<html>", OCI, "not a well-formed"),
        (r#"{"schemaVersion":2,"mediaType":"application/vnd.example+json"}"#, "", "neither an image manifest nor"),
    ] {
        let error = read(text, announced).unwrap_err().to_string();
        assert!(error.contains(why), "{text} {announced}: {error}");
    }
}

#[test]
fn bad_descriptors_are_refused() {
    let good = layer("");
    for (from, to) in [
        (&*format!("sha256:{HEX}"), "sha256:../../x"),
        (HEX, "0A"),
        ("sha256", "SHA256"),
        ("sha256", "md5"),
        (HEX, &HEX[2..]),
        (HEX, &format!("{HEX}00")),
        ("\"size\":3", "\"size\":-1"),
        ("\"size\":3", "\"size\":9223372036854775808"),
        ("\"size\":3", "\"size\":99999999999999999999"),
        ("\"size\":3", "\"size\":\"3\""),
        ("\"size\":3", "\"size\":1.5"),
        (",\"size\":3", ""),
        ("tar+gzip", "tar+gzip+encrypted"),
        ("layer.v1.tar", "layer.nondistributable.v1.tar"),
    ] {
        assert_ne!(good.replace(from, to), good, "{from}");
        assert!(read(&manifest(&config(), &good.replace(from, to)), OCI).is_err(), "{to}");
    }
    let foreign = read(&manifest(&config(), &layer(r#","urls":["http://169.254.169.254/"]"#)), OCI).unwrap_err();
    assert!(matches!(foreign, DocumentError::Foreign(_)), "{foreign}");
    assert!(read(&manifest(&config(), &layer(r#","urls":[]"#)), OCI).is_ok());
    let artifact = config().replace("vnd.oci.image.config", "vnd.cncf.helm.config");
    assert!(matches!(read(&manifest(&artifact, ""), OCI), Err(DocumentError::Unsupported { .. })));
}

#[test]
fn counts_are_limited() {
    let many = |n: usize| vec![layer(""); n].join(",");
    assert!(read(&manifest(&config(), &many(256)), OCI).is_ok());
    assert!(matches!(read(&manifest(&config(), &many(257)), OCI), Err(DocumentError::Limit { .. })));
    let big = vec![layer("").replace("\"size\":3", "\"size\":17179869184"); 9].join(",");
    assert!(matches!(read(&manifest(&config(), &big), OCI), Err(DocumentError::Limit { .. })));
    let entry = format!(r#"{{"mediaType":"{OCI}","digest":"sha256:{HEX}","size":9}}"#);
    let index = |n: usize| format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, vec![entry.clone(); n].join(","));
    assert!(read(&index(1000), INDEX).is_ok());
    assert!(matches!(read(&index(1001), INDEX), Err(DocumentError::Limit { .. })));
    assert!(matches!(parse_manifest(&vec![b' '; (4 << 20) + 1], None), Err(DocumentError::Limit { .. })));
}

#[test]
fn configs_belong_to_their_manifest() {
    let config =
        |kind: &str, ids: &str| format!(r#"{{"os":"linux","architecture":"amd64","rootfs":{{"type":"{kind}","diff_ids":{ids}}}}}"#);
    let one = format!(r#"["sha256:{HEX}"]"#);
    assert_eq!(check_config(config("layers", &one).as_bytes(), 1).unwrap().unwrap().to_string(), "linux/amd64");
    assert!(check_config(config("layers", "null").as_bytes(), 0).is_ok());
    assert!(check_config(br#"{"rootfs":{"type":"layers"}}"#, 0).unwrap().is_none());
    for (text, layers) in [
        (config("layers", &one), 0),
        (config("layers", &one), 2),
        (config("other", &one), 1),
        (config("layers", r#"["../x"]"#), 1),
        ("{}".to_owned(), 0),
        ("<html>".to_owned(), 0),
        (r#"{"rootfs":{"type":"layers"},"rootfs":{"type":"layers"}}"#.to_owned(), 0),
    ] {
        assert!(check_config(text.as_bytes(), layers).is_err(), "{text} {layers}");
    }
}
