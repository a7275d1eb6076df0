//! The description of the service for reflection: what `ipam.proto` of Liqo 0.8.3 says.

use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto,
    ServiceDescriptorProto,
    field_descriptor_proto::{Label, Type},
};

use crate::Call;

/// The file of the service; its messages have the numbers of [`crate::MapRequest`] and its neighbours.
pub fn files() -> FileDescriptorSet {
    let both = [("clusterID", Type::String), ("ip", Type::String)];
    let file = FileDescriptorProto {
        name: Some("ipam.proto".to_owned()),
        syntax: Some("proto3".to_owned()),
        message_type: vec![
            message("MapRequest", &both),
            message("MapResponse", &[("ip", Type::String)]),
            message("UnmapRequest", &both),
            message("UnmapResponse", &[]),
            message("GetHomePodIPRequest", &both),
            message("GetHomePodIPResponse", &[("homeIP", Type::String)]),
            message("BelongsRequest", &[("ip", Type::String)]),
            message("BelongsResponse", &[("belongs", Type::Bool)]),
        ],
        service: vec![ServiceDescriptorProto {
            name: Some("ipam".to_owned()),
            method: Call::ALL.into_iter().map(method).collect(),
            ..ServiceDescriptorProto::default()
        }],
        ..FileDescriptorProto::default()
    };
    FileDescriptorSet { file: vec![file] }
}

fn method(call: Call) -> MethodDescriptorProto {
    let messages = match call {
        Call::MapEndpointIp => "Map",
        Call::UnmapEndpointIp => "Unmap",
        Call::GetHomePodIp => "GetHomePodIP",
        Call::BelongsToPodCidr => "Belongs",
    };
    MethodDescriptorProto {
        name: Some(call.name().to_owned()),
        input_type: Some(format!(".{messages}Request")),
        output_type: Some(format!(".{messages}Response")),
        ..MethodDescriptorProto::default()
    }
}

/// A message whose fields have the numbers 1, 2 and so on.
fn message(name: &str, fields: &[(&str, Type)]) -> DescriptorProto {
    let field = |(number, (name, kind)): (i32, &(&str, Type))| FieldDescriptorProto {
        name: Some((*name).to_owned()),
        number: Some(number),
        label: Some(Label::Optional.into()),
        r#type: Some((*kind).into()),
        ..FieldDescriptorProto::default()
    };
    DescriptorProto {
        name: Some(name.to_owned()),
        field: (1..).zip(fields).map(field).collect(),
        ..DescriptorProto::default()
    }
}
