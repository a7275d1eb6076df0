//! The address management of a cluster, reached through a port that is forwarded to its pod.
#![expect(clippy::disallowed_types, reason = "a forwarded port is a stream, none of Cluster's verbs")]

use std::{net::IpAddr, time::Duration};

use anyhow::{Context, anyhow};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::{Api, ResourceExt, api::Portforwarder};
use liqo_ipam_rpc::{IpamClient, IpamError, PORT};

use super::side::Side;
use crate::wait::Deadline;

/// The Service of the address management.
const SERVICE: &str = "liqo-network-manager";
/// Pause before the same question is asked again.
const AGAIN: Duration = Duration::from_millis(300);

/// A connection to the address management of one side. It ends when dropped.
pub(crate) struct Ipam<'a> {
    side: &'a Side,
    client: IpamClient,
    pod: String,
    /// Keeps the port forwarded.
    _forwarder: Portforwarder,
}

impl<'a> Ipam<'a> {
    /// Forwards the port.
    pub(crate) async fn open(side: &'a Side) -> anyhow::Result<Self> {
        let step = side.out.step("Port-forwarding the IPAM service");
        let (client, pod, forwarder) = forward(side).await.context("reaching the IPAM service")?;
        step.done(format!("IPAM service correctly port-forwarded \"{pod}:{PORT}\""));
        Ok(Self { side, client, pod, _forwarder: forwarder })
    }

    /// The address under which the cluster `peer` must use `ip`. Asks until the networks of the peer are known.
    pub(crate) async fn map(&mut self, peer: &str, ip: IpAddr, deadline: Deadline) -> anyhow::Result<IpAddr> {
        loop {
            let error = match self.client.map_endpoint_ip(peer, ip).await {
                Ok(mapped) => return Ok(mapped),
                Err(error) => error,
            };
            if error.is_invalid() || deadline.is_over() {
                return Err(error.into());
            }
            tokio::time::sleep(AGAIN).await;
            self.renew(&error).await;
        }
    }

    /// The cluster `peer` does not use `ip` any more. A cluster that is not known there never did.
    pub(crate) async fn unmap(&mut self, peer: &str, ip: IpAddr) -> Result<(), IpamError> {
        match self.client.unmap_endpoint_ip(peer, ip).await {
            Err(error) if error.message().contains("must be initialized first") => Ok(()),
            other => other,
        }
    }

    /// A connection that broke is made anew; should that fail, the next question will tell.
    async fn renew(&mut self, error: &IpamError) {
        if error.is_unreachable()
            && let Ok((client, pod, forwarder)) = forward(self.side).await
        {
            (self.client, self.pod, self._forwarder) = (client, pod, forwarder);
        }
    }

    /// Ends the connection.
    pub(crate) fn close(self) {
        self.side.out.done(format!("IPAM service port-forward correctly stopped \"{}:{PORT}\"", self.pod));
    }
}

async fn forward(side: &Side) -> anyhow::Result<(IpamClient, String, Portforwarder)> {
    let service: Option<Service> = side.cluster.get(&side.namespace, SERVICE).await?;
    let service = service.with_context(|| format!("service {}/{SERVICE} does not exist", side.namespace))?;
    let selector = service.spec.and_then(|spec| spec.selector).unwrap_or_default();
    let selector: Vec<_> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let pods: Vec<Pod> = side.cluster.list(&side.namespace, &selector.join(",")).await?;
    let pod = pods.iter().find(|pod| is_ready(pod)).map(ResourceExt::name_any);
    let pod = pod.ok_or_else(|| anyhow!("no pod of {SERVICE} is ready"))?;
    let pods: Api<Pod> = Api::namespaced(side.cluster.client().clone(), &side.namespace);
    let forwarded = pods.portforward(&pod, &[PORT]).await;
    let mut forwarder = forwarded.with_context(|| format!("forwarding port {PORT} of pod {pod}"))?;
    let stream = forwarder.take_stream(PORT).context("the port that was asked for is not forwarded")?;
    Ok((IpamClient::over(stream), pod, forwarder))
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    pod.metadata.deletion_timestamp.is_none()
        && conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True")
}
