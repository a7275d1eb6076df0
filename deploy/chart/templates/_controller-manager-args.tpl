{{- /* Arguments of the controller manager, in the order of 0.8.3. */}}
{{- define "liqo.controllerManager.args" -}}
{{- $config := .Values.controllerManager.config -}}
{{- $kubelet := .Values.virtualKubelet -}}
- --cluster-name={{ .Values.discovery.config.clusterName }}
- --liqo-namespace=$(POD_NAMESPACE)
- --enable-incoming-peering={{ .Values.discovery.config.incomingPeeringEnabled }}
- --resource-sharing-percentage={{ $config.resourceSharingPercentage }}
- {{ include "liqo.image" (dict "root" . "values" $kubelet) | printf "--kubelet-image=%s" | quote }}
{{- if $kubelet.metrics.enabled }}
- --kubelet-metrics-address=:{{ $kubelet.metrics.port }}
- --kubelet-metrics-enabled=true
{{- end }}
{{- if .Values.networkManager.externalIPAM.enabled }}
- {{ printf "--kubelet-ipam-server=%s" .Values.networkManager.externalIPAM.url | quote }}
{{- else if .Values.networking.internal }}
- --kubelet-ipam-server=liqo-network-manager.{{ .Release.Namespace }}:6000
{{- else }}
- --kubelet-ipam-server=
{{- end }}
{{- if not .Values.networking.internal }}
- --disable-internal-network
{{- with .Values.offloading.guests.networks }}
- {{ join "," . | printf "--kubelet-peer-networks=%s" | quote }}
{{- end }}
{{- end }}
- --auto-join-discovered-clusters={{ .Values.discovery.config.autojoin }}
- --enable-storage=false
- --webhook-port={{ .Values.webhook.port }}
{{- with .Values.webhook.clientCA }}
- {{ printf "--webhook-client-ca=%s" . | quote }}
{{- end }}
{{- if $config.enableResourceEnforcement }}
- --enable-resource-enforcement
{{- end }}
{{- if $config.enableNodeFailureController }}
- --enable-node-failure-controller
{{- end }}
{{- include "liqo.guestArgs" .Values.offloading.guests }}
{{- if .Values.openshiftConfig.enable }}
- --kubelet-platform-security-context
{{- end }}
{{- with $kubelet.extra.annotations }}
- {{ include "liqo.pairs" . | printf "--kubelet-extra-annotations=%s" | quote }}
{{- end }}
{{- with $kubelet.extra.labels }}
- {{ include "liqo.pairs" . | printf "--kubelet-extra-labels=%s" | quote }}
{{- end }}
- {{ include "liqo.kubeletArgs" . | printf "--kubelet-extra-args=%s" | quote }}
{{- with $kubelet.virtualNode.extra.annotations }}
- {{ include "liqo.pairs" . | printf "--node-extra-annotations=%s" | quote }}
{{- end }}
{{- with $kubelet.virtualNode.extra.labels }}
- {{ include "liqo.pairs" . | printf "--node-extra-labels=%s" | quote }}
{{- end }}
{{- with .Values.controllerManager.pod.extraArgs }}
{{ toYaml . }}
{{- end }}
{{- with .Values.discovery.config.clusterLabels }}
- {{ include "liqo.pairs" . | printf "--cluster-labels=%s" | quote }}
{{- end }}
{{- if gt (int .Values.controllerManager.replicas) 1 }}
- --enable-leader-election=true
{{- end }}
{{- $flags := dict "cpu" "cpu" "memory" "ram" }}
{{- range $bound := list "requests" "limits" }}
{{- range $resource, $quantity := index $kubelet.extra.resources $bound }}
{{- if not (hasKey $flags $resource) }}
{{- fail (printf "Unsupported resource type %q for virtual kubelet containers' %s" $resource $bound) }}
{{- end }}
- --kubelet-{{ index $flags $resource }}-{{ $bound }}={{ $quantity }}
{{- end }}
{{- end }}
{{- with $config.resourcePluginAddress }}
- {{ printf "--resource-plugin-address=%s" . | quote }}
{{- end }}
{{- $threshold := toString $config.offerUpdateThresholdPercentage }}
{{- if eq $threshold "" }}
{{- $threshold = empty $config.resourcePluginAddress | ternary "5" "0" }}
{{- end }}
- --offer-update-threshold-percentage={{ $threshold }}
- --withdrawal-deadline={{ $config.withdrawalDeadline }}
- --namespaces-per-peer={{ .Values.offloading.namespacesPerPeer }}
- {{ join "," .Values.offloading.freeNames | printf "--free-names=%s" | quote }}
- --pod-security={{ .Values.offloading.podSecurity }}
{{- include "liqo.identityArgs" . }}
{{- include "liqo.reachArgs" . }}
{{- with .Values.offloading.reservedNamespaces }}
- {{ join "," . | printf "--reserved-namespaces=%s" | quote }}
{{- end }}
{{- end }}

{{- /* Who is given an identity. */}}
{{- define "liqo.identityArgs" }}
{{- with .Values.auth }}
- --enable-authentication={{ .config.enableAuthentication }}
- --accept-cluster-token={{ .config.acceptClusterToken }}
- --pin-certificate={{ and .config.pinCertificate .tls (not .ingress.enable) }}
- {{ printf "--identity-lifetime=%s" .config.identityLifetime | quote }}
- {{ printf "--max-tenants=%d" (int .config.maxTenants) | quote }}
{{- end }}
{{- with .Values.apiServer.address }}
- {{ printf "--advertise-api-server-address=%s" . | quote }}
{{- end }}
{{- if .Values.apiServer.trustedCA }}
- --advertise-api-server-trusted-ca
{{- end }}
{{- end }}

{{- /* Where this cluster is, so that no peer leads us there. */}}
{{- define "liqo.reachArgs" }}
{{- with compact (list .Values.networkManager.config.podCIDR .Values.networkManager.config.serviceCIDR) }}
- {{ join "," . | printf "--own-networks=%s" | quote }}
{{- end }}
{{- with .Values.networking.peersWithin }}
- {{ join "," . | printf "--peers-within=%s" | quote }}
{{- end }}
{{- end }}

{{- /* What pods of peers may ask for. */}}
{{- define "liqo.guestArgs" }}
{{- $lists := dict "tolerations" "tolerations" "priorityClasses" "priority-classes" "runtimeClasses" "runtime-classes" "annotations" "annotations" "networks" "networks" "volumes" "volumes" }}
{{- range $value, $flag := $lists }}
{{- with index $ $value }}
- {{ join "," . | printf "--guest-%s=%s" $flag | quote }}
{{- end }}
{{- end }}
{{- with .runtimeClass }}
- {{ printf "--guest-runtime-class=%s" . | quote }}
{{- end }}
{{- if .privileged }}
- --guest-privileged
{{- end }}
{{- $objects := list }}
{{- range $resource, $count := .objects }}
{{- if not (kindIs "invalid" $count) }}
{{- /* Helm has numbers as floats: a large one would be written with an exponent. */}}
{{- $count = kindIs "string" $count | ternary $count (printf "%d" (int64 $count)) }}
{{- $objects = printf "%s=%s" $resource $count | append $objects }}
{{- end }}
{{- end }}
{{- with $objects }}
- {{ join "," . | printf "--guest-objects=%s" | quote }}
{{- end }}
{{- end }}

{{- /* Arguments of virtual kubelets: the user's, and what the values imply unless the user said it. */}}
{{- define "liqo.kubeletArgs" -}}
{{- $implied := list "--enable-apiserver-support=true" -}}
{{- if not .Values.networking.internal -}}
{{- $implied = append $implied "--node-check-network=false" -}}
{{- end -}}
{{- if not .Values.networking.reflectIPs -}}
{{- $implied = append $implied "--disable-ip-reflection" -}}
{{- end -}}
{{- if or .Values.awsConfig.accessKeyId .Values.awsConfig.secretAccessKey -}}
{{- $implied = append $implied "--certificate-type=aws" -}}
{{- end -}}
{{- $args := .Values.virtualKubelet.extra.args -}}
{{- $said := dict -}}
{{- range $args -}}
{{- $_ := set $said (splitList "=" . | first) true -}}
{{- end -}}
{{- range $implied -}}
{{- if not (hasKey $said (splitList "=" . | first)) -}}
{{- $args = append $args . -}}
{{- end -}}
{{- end -}}
{{- join "," $args -}}
{{- end }}
