{{- /* Names, labels and pod blocks shared by the components. A component is (dict "root" $ "name" .. "component" .. "values" ..). */}}

{{- define "liqo.selector" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}-{{ .name }}
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/part-of: {{ .root.Chart.Name }}
{{- end }}

{{- define "liqo.labels" -}}
{{ include "liqo.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* Image of a component: its own or the common one. A name with a digest is taken as it is. */}}
{{- define "liqo.image" -}}
{{- $name := .values.imageName | default .root.Values.image -}}
{{- if contains "@" $name -}}
{{- $name -}}
{{- else -}}
{{- $tag := .root.Values.tag | default .root.Chart.AppVersion | required "At least one between .Values.tag and .Chart.AppVersion should be set" -}}
{{- printf "%s:%s" $name $tag -}}
{{- end -}}
{{- end }}

{{- /* a=1,b=2 */}}
{{- define "liqo.pairs" -}}
{{- $pairs := list -}}
{{- range $key, $value := . -}}
{{- $pairs = append $pairs (printf "%s=%s" $key (toString $value)) -}}
{{- end -}}
{{- join "," $pairs -}}
{{- end }}

{{- /* Metadata of the pods of a component; "labels" are additional ones. */}}
{{- define "liqo.podMetadata" -}}
{{- with .values.pod.annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
labels:
  {{- include "liqo.labels" . | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with .values.pod.labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- /*
Everything of a pod's spec but its containers. "replicas" above one spreads the pods; a pod of the "host" has the
node's network, so two of them on one node would claim the same ports. A pod that stays "here" runs on no other cluster.
*/}}
{{- define "liqo.podSpec" -}}
serviceAccountName: {{ .root.Chart.Name }}-{{ .name }}
{{- with .values.pod.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- if .host }}
hostNetwork: true
{{- else if not .root.Values.openshiftConfig.enable }}
securityContext:
  runAsNonRoot: true
  runAsUser: 1000
  runAsGroup: 1000
  fsGroup: 1000
  seccompProfile:
    type: RuntimeDefault
{{- end }}
{{- with .root.Values.common.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.common.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $affinity := deepCopy .root.Values.common.affinity }}
{{- if gt (int .replicas) 1 }}
{{- $spread := include "liqo.spread" . | fromYaml }}
{{- $affinity = mergeOverwrite $spread $affinity }}
{{- end }}
{{- if .here }}
{{- $affinity = mergeOverwrite (include "liqo.here" . | fromYaml) $affinity }}
{{- end }}
{{- with $affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* Never on a virtual node, whatever the offloading of the namespace says. */}}
{{- define "liqo.here" -}}
nodeAffinity:
  requiredDuringSchedulingIgnoredDuringExecution:
    nodeSelectorTerms:
      - matchExpressions:
          - key: liqo.io/type
            operator: NotIn
            values:
              - virtual-node
{{- end }}

{{- define "liqo.spread" -}}
podAntiAffinity:
  {{- if .host }}
  requiredDuringSchedulingIgnoredDuringExecution:
    - topologyKey: kubernetes.io/hostname
      labelSelector:
        matchLabels:
          {{- include "liqo.selector" . | nindent 10 }}
  {{- else }}
  preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      podAffinityTerm:
        topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "liqo.selector" . | nindent 12 }}
  {{- end }}
{{- end }}

{{- /*
What the containers of all components have in common. With "capabilities" one has these and is root, but not privileged. On the "host" the health port is asked by the kubelet on the
loopback address and open to nobody else.
*/}}
{{- define "liqo.container" -}}
image: {{ include "liqo.image" . | quote }}
imagePullPolicy: {{ .root.Values.pullPolicy }}
# What a component said last is why it ended: `kubectl describe pod` shows it.
terminationMessagePolicy: FallbackToLogsOnError
securityContext:
  {{- if .capabilities }}
  # Links, routes and rules of the node; the image's own user is none of root.
  runAsUser: 0
  allowPrivilegeEscalation: false
  capabilities:
    drop:
      - ALL
    add:
      {{- toYaml .capabilities | nindent 6 }}
  seccompProfile:
    type: RuntimeDefault
  # Where SELinux is enforced, no other type of a container may write values of the network.
  seLinuxOptions:
    type: spc_t
  {{- if and (has "SYS_ADMIN" .capabilities) (semverCompare ">=1.30-0" .root.Capabilities.KubeVersion.Version) }}
  # The profile of container runtimes forbids mounts, and a namespace is bound by one.
  appArmorProfile:
    type: Unconfined
  {{- end }}
  {{- else }}
  allowPrivilegeEscalation: false
  capabilities:
    drop:
      - ALL
  {{- end }}
  readOnlyRootFilesystem: true
readinessProbe:
  httpGet:
    {{- include "liqo.health" . | nindent 4 }}
    path: /readyz
  {{- if .host }}
  periodSeconds: 2
  {{- end }}
livenessProbe:
  httpGet:
    {{- include "liqo.health" . | nindent 4 }}
    path: /healthz
  initialDelaySeconds: 10
  periodSeconds: 20
resources:
  {{- toYaml .values.pod.resources | nindent 2 }}
{{- end }}

{{- define "liqo.health" -}}
{{- if .host -}}
host: 127.0.0.1
port: {{ .health }}
{{- else -}}
port: healthz
{{- end -}}
{{- end }}

{{- /* Who and where a pod is. */}}
{{- define "liqo.downward" -}}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
{{- if .host }}
- name: POD_IP
  valueFrom:
    fieldRef:
      fieldPath: status.podIP
- name: NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
{{- end }}
{{- end }}

{{- /* ServiceAccount, ClusterRole and, where it has rights in the Liqo namespace alone, Role of a component, with their bindings. */}}
{{- define "liqo.access" -}}
{{- $full := printf "%s-%s" .root.Chart.Name .name -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ $full }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "liqo.labels" . | nindent 4 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: {{ $full }}
  labels:
    {{- include "liqo.labels" . | nindent 4 }}
rules:
{{ .root.Files.Get (printf "files/rbac/%s.yaml" .name) | required (printf "no access rules for %s" .name) | trim }}
{{- with .more }}
{{ $.root.Files.Get (printf "files/rbac/%s.yaml" .) | required (printf "no access rules for %s" .) | trim }}
{{- end }}
{{- if and .host .root.Values.openshiftConfig.enable }}
- apiGroups:
  - security.openshift.io
  resources:
  - securitycontextconstraints
  resourceNames:
  - privileged
  verbs:
  - use
{{- end }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ $full }}
  labels:
    {{- include "liqo.labels" . | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: {{ $full }}
subjects:
  - kind: ServiceAccount
    name: {{ $full }}
    namespace: {{ .root.Release.Namespace }}
{{- $namespaced := .root.Files.Get (printf "files/rbac/%s.namespaced.yaml" .name) }}
{{- if $namespaced }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ $full }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "liqo.labels" . | nindent 4 }}
rules:
{{ $namespaced }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $full }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "liqo.labels" . | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ $full }}
subjects:
  - kind: ServiceAccount
    name: {{ $full }}
    namespace: {{ .root.Release.Namespace }}
{{- end }}
{{- end }}
