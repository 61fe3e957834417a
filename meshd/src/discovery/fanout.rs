//! What is in force, cut for each proxy and encoded once for all of them.

use std::sync::{Arc, Mutex, PoisonError};

use mesh_core::snapshot::Snapshot;
use mesh_core::sync::message::DeltaMessage;
use mesh_proto::convert::EncodedSections;
use mesh_proto::convert::message::{frames, server_message};
use mesh_proto::generated::ServerMessage;
use prost::Message;

use crate::controller::Published;
use crate::telemetry;

/// Shared by all streams.
#[derive(Default)]
pub struct Fanout {
    encoded: Mutex<EncodedSections>,
}

impl Fanout {
    /// The snapshot of a node.
    pub fn snapshot(&self, node: &str, published: &Published) -> Arc<Snapshot> {
        Arc::new(published.compiled.snapshot_for(node, published.version))
    }

    /// A delta as it goes over the wire.
    pub fn messages(&self, delta: &DeltaMessage) -> Vec<ServerMessage> {
        // A panic under the lock leaves a memo of bytes that are right.
        let mut encoded = self.encoded.lock().unwrap_or_else(PoisonError::into_inner);
        let messages: Vec<_> = frames(delta, &mut encoded).into_iter().map(server_message).collect();
        drop(encoded);
        telemetry::sent(messages.iter().map(Message::encoded_len).sum());
        messages
    }
}
