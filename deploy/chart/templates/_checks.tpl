{{- /* What a schema cannot say. Included once, by the ConfigMap with the identity of the cluster. */}}
{{- define "liqo.checks" -}}
{{- if .Values.networking.internal }}
{{- fail "The internal network fabric is not part of this release: set networking.internal to false (.Values.networking.internal)" }}
{{- end }}
{{- if .Values.networkManager.externalIPAM.enabled }}
{{- fail "An external IPAM is not part of this release: set networkManager.externalIPAM.enabled to false (.Values.networkManager.externalIPAM.enabled)" }}
{{- end }}
{{- if not (has .Values.nameOverride (list "" .Chart.Name)) }}
{{- fail (printf "Object names are part of the contract with peers: nameOverride must be empty or %q (.Values.nameOverride)" .Chart.Name) }}
{{- end }}
{{- $name := required "The cluster name (.Values.discovery.config.clusterName) must be set" .Values.discovery.config.clusterName }}
{{- if or (gt (len $name) 63) (not (regexMatch "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$" $name)) }}
{{- fail (printf "The cluster name (.Values.discovery.config.clusterName) may only contain lowercase letters, numbers and hyphens, and must not be longer than 63 characters: %q" $name) }}
{{- end }}
{{- end }}

{{- /*
The ID of the cluster, when the chart has to say it: it was given, or an earlier chart wrote it.
An ID made by a component (see the annotation) is never rendered, so that Helm never owns it and
neither a rollback nor a tool that renders offline can take it away.
*/}}
{{- define "liqo.clusterID" -}}
{{- $override := .Values.discovery.config.clusterIDOverride | default "" }}
{{- if and $override (not (regexMatch "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$" $override)) }}
{{- fail "Provided cluster ID must be a valid UUID" }}
{{- end }}
{{- $existing := lookup "v1" "ConfigMap" .Release.Namespace "liqo-clusterid-configmap" | default dict }}
{{- $id := dig "data" "CLUSTER_ID" "" $existing }}
{{- if and $id $override (ne $id $override) }}
{{- fail "Changing the cluster ID by providing a different .discovery.config.clusterIDOverride value is not allowed." }}
{{- end }}
{{- if not (hasKey (dig "metadata" "annotations" dict $existing) "discovery.liqo.io/cluster-id-generated") }}
{{- $override | default $id }}
{{- end }}
{{- end }}
