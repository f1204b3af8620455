//! Holds `proto/runtime/v1/api.proto` against the table of the wire contract, both ways: nothing missing, nothing more.

use std::collections::BTreeSet;

use prost::Message as _;
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet, field_descriptor_proto::Type};

type Rows = BTreeSet<String>;

fn table() -> Rows {
    include_str!("v1-wire.tsv").lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

fn local(name: &str) -> &str {
    name.trim_start_matches(".runtime.v1.")
}

fn type_of(field: &FieldDescriptorProto, message: &DescriptorProto) -> String {
    let named = local(field.type_name());
    let text = match field.r#type() {
        Type::Message if named.ends_with("Entry") => {
            let entry = message.nested_type.iter().find(|n| named.ends_with(n.name())).expect("a map's entry is nested");
            format!("map<{},{}>", type_of(&entry.field[0], entry), type_of(&entry.field[1], entry))
        }
        Type::Message | Type::Enum if field.label() == prost_types::field_descriptor_proto::Label::Repeated => {
            format!("repeated {named}")
        }
        Type::Message | Type::Enum => named.to_owned(),
        other => {
            let scalar = other.as_str_name().trim_start_matches("TYPE_").to_lowercase();
            let repeated = field.label() == prost_types::field_descriptor_proto::Label::Repeated;
            if repeated { format!("repeated {scalar}") } else { scalar }
        }
    };
    let deprecated = field.options.as_ref().is_some_and(|o| o.deprecated());
    if deprecated { format!("{text} deprecated") } else { text }
}

fn add_enum(rows: &mut Rows, owner: &str, kind: &EnumDescriptorProto) {
    for value in &kind.value {
        rows.insert(format!("enum\t{owner}\t{}\t{}\t-", value.name(), value.number()));
    }
}

fn compiled() -> Rows {
    let set = FileDescriptorSet::decode(api::FILE_DESCRIPTOR_SET).expect("our own descriptors decode");
    let file = set.file.iter().find(|f| f.package() == "runtime.v1").expect("runtime.v1 is compiled in");
    let mut rows = Rows::new();
    for service in &file.service {
        for rpc in &service.method {
            let stream = if rpc.server_streaming() { "stream " } else { "" };
            let (request, response) = (local(rpc.input_type()), local(rpc.output_type()));
            rows.insert(format!("rpc\t{}\t{}\t-\t{request} -> {stream}{response}", service.name(), rpc.name()));
        }
    }
    file.enum_type.iter().for_each(|kind| add_enum(&mut rows, kind.name(), kind));
    for message in &file.message_type {
        for kind in &message.enum_type {
            add_enum(&mut rows, &format!("{}.{}", message.name(), kind.name()), kind);
        }
        for field in &message.field {
            rows.insert(format!("field\t{}\t{}\t{}\t{}", message.name(), field.name(), field.number(), type_of(field, message)));
        }
        if message.field.is_empty() {
            rows.insert(format!("message\t{}\t-\t-\tempty", message.name()));
        }
    }
    rows
}

#[test]
fn the_proto_says_what_the_table_says_and_nothing_else() {
    let (table, compiled) = (table(), compiled());
    assert_eq!(table.difference(&compiled).collect::<Vec<_>>(), Vec::<&String>::new(), "missing in the proto");
    assert_eq!(compiled.difference(&table).collect::<Vec<_>>(), Vec::<&String>::new(), "not in the table");
    assert_eq!(table.iter().filter(|row| row.starts_with("rpc")).count(), 43);
}
