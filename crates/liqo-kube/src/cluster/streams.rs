//! What is no object but bytes: logs and forwarded ports of pods.
#![expect(clippy::disallowed_types, reason = "part of the one door to API servers")]

use futures::AsyncRead as Bytes;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{LogParams, Portforwarder},
};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Cause, Cluster, KubeError, failure};

/// A port of a pod as a stream; it closes when the stream or the forwarding is dropped.
pub struct Forwarded<S> {
    /// The bytes, both ways.
    pub stream: S,
    _forwarder: Portforwarder,
}

impl Cluster {
    fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The log of a container, byte for byte; with `follow` until the container ends.
    pub async fn log(
        &self,
        (namespace, pod): (&str, &str),
        container: &str,
        follow: bool,
    ) -> Result<impl Bytes + Send + use<>, KubeError> {
        self.calls.add("log", "Pod");
        let params = LogParams { container: Some(container.to_owned()), follow, ..LogParams::default() };
        let opened = self.pods(namespace).log_stream(pod, &params).await;
        opened.map_err(|error| failure("log", "Pod", pod, Cause::Kube(Box::new(error))))
    }

    /// A port of a pod.
    pub async fn forward(
        &self,
        (namespace, pod): (&str, &str),
        port: u16,
    ) -> Result<Forwarded<impl AsyncRead + AsyncWrite + Unpin + Send + use<>>, KubeError> {
        self.calls.add("forward", "Pod");
        let failed = |error| failure("forward", "Pod", pod, Cause::Kube(Box::new(error)));
        let mut forwarder = self.pods(namespace).portforward(pod, &[port]).await.map_err(failed)?;
        let stream = forwarder.take_stream(port).expect("the port that was asked for, taken once");
        Ok(Forwarded { stream, _forwarder: forwarder })
    }
}
