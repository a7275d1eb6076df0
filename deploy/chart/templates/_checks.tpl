{{- /* What a schema cannot say. Included once, by the ConfigMap with the identity of the cluster. */}}
{{- define "liqo.checks" -}}
{{- if and .Values.networkManager.externalIPAM.enabled (not .Values.networkManager.externalIPAM.url) }}
{{- fail "The address of the external IPAM (.Values.networkManager.externalIPAM.url) must be set when networkManager.externalIPAM.enabled is" }}
{{- end }}
{{- if .Values.networking.internal }}
{{- include "liqo.checkRanges" . }}
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


{{- /*
The ranges of addresses of the network fabric: each is a network, and what must not share addresses does not. The
shape of a CIDR is in the schema; whether a peer's ranges fit is for the IPAM, which translates them.
*/}}
{{- define "liqo.checkRanges" -}}
{{- $config := .Values.networkManager.config -}}
{{- $why := "Liqo connects the pod networks (networking.internal) and has to know it" -}}
{{- $ranges := list -}}
{{- range $key := list "podCIDR" "serviceCIDR" -}}
{{- $cidr := index $config $key | required (printf "networkManager.config.%s must be set: %s" $key $why) -}}
{{- $ranges = append $ranges (dict "name" (printf "networkManager.config.%s" $key) "cidr" $cidr) -}}
{{- end -}}
{{- range $cidr := $config.reservedSubnets -}}
{{- $ranges = append $ranges (dict "name" "networkManager.config.reservedSubnets" "cidr" $cidr) -}}
{{- end -}}
{{- include "liqo.checkDisjoint" $ranges -}}
{{- $pools := list -}}
{{- range $cidr := list "10.0.0.0/8" "192.168.0.0/16" "172.16.0.0/12" -}}
{{- $pools = append $pools (dict "name" "the pools that are always there" "cidr" $cidr) -}}
{{- end -}}
{{- range $cidr := $config.additionalPools -}}
{{- $pools = append $pools (dict "name" "networkManager.config.additionalPools" "cidr" $cidr) -}}
{{- end -}}
{{- include "liqo.checkDisjoint" $pools -}}
{{- end }}

{{- /* Fails for the first range that is no network, and for the first two that share addresses. */}}
{{- define "liqo.checkDisjoint" -}}
{{- $seen := list -}}
{{- range $one := . -}}
{{- $span := include "liqo.span" $one | fromJson -}}
{{- range $other := $seen -}}
{{- if and (lt (int64 $span.first) (int64 $other.span.after)) (lt (int64 $other.span.first) (int64 $span.after)) -}}
{{- fail (printf "%s (%s) shares addresses with %s (%s)" $one.cidr $one.name $other.one.cidr $other.one.name) -}}
{{- end -}}
{{- end -}}
{{- $seen = append $seen (dict "one" $one "span" $span) -}}
{{- end -}}
{{- end }}

{{- /* First address of a range, and the first one after it, as numbers. Helm has no operations on bits. */}}
{{- define "liqo.span" -}}
{{- $parts := splitList "/" .cidr -}}
{{- $first := 0 -}}
{{- range $octet := first $parts | splitList "." -}}
{{- $first = add (mul $first 256) (int64 $octet) -}}
{{- end -}}
{{- $size := 1 -}}
{{- range until (sub 32 (last $parts | int64) | int) -}}
{{- $size = mul $size 2 -}}
{{- end -}}
{{- if ne (mod $first $size) 0 -}}
{{- fail (printf "%s (%s) is not a network: there are bits of an address after its first %s" .cidr .name (last $parts)) -}}
{{- end -}}
{"first": {{ $first }}, "after": {{ add $first $size }}}
{{- end }}
