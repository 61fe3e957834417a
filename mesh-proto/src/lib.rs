//! The wire between the two binaries: the schema's generated types and their conversions from and to
//! [`mesh_core`].
//!
//! Only [`convert`] and the gRPC faces of the binaries name a generated type.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod convert;

pub mod generated {
    //! Written by `cargo run -p mesh-proto --example codegen` from `proto/mesh/v1/*.proto`.
    #![allow(
        missing_docs,
        unreachable_pub,
        unused_qualifications,
        clippy::all,
        clippy::allow_attributes_without_reason,
        clippy::needless_pass_by_value,
        reason = "generated code; the schema carries the documentation"
    )]
    include!("generated/mesh.v1.rs");
}

pub mod load_report;
pub mod token;
