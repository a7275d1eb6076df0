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

{{- /* Metadata of the pods of a component; "labels" are additional ones that are also in the selector. */}}
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

{{- /* Everything of a pod's spec but its containers. "replicas" above one spreads the pods. */}}
{{- define "liqo.podSpec" -}}
serviceAccountName: {{ .root.Chart.Name }}-{{ .name }}
{{- if not .root.Values.openshiftConfig.enable }}
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
{{- with $affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "liqo.spread" -}}
podAntiAffinity:
  preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      podAffinityTerm:
        topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "liqo.selector" . | nindent 12 }}
{{- end }}

{{- /* What the containers of all components have in common. */}}
{{- define "liqo.container" -}}
image: {{ include "liqo.image" . | quote }}
imagePullPolicy: {{ .root.Values.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop:
      - ALL
readinessProbe:
  httpGet:
    path: /readyz
    port: healthz
livenessProbe:
  httpGet:
    path: /healthz
    port: healthz
  initialDelaySeconds: 10
  periodSeconds: 20
resources:
  {{- toYaml .values.pod.resources | nindent 2 }}
{{- end }}

{{- /* ServiceAccount, ClusterRole and Role of a component, with their bindings. */}}
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
{{ .root.Files.Get (printf "files/rbac/%s.yaml" .name) | required (printf "no access rules for %s" .name) }}
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
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ $full }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "liqo.labels" . | nindent 4 }}
rules:
{{ .root.Files.Get (printf "files/rbac/%s.namespaced.yaml" .name) | required (printf "no access rules for %s" .name) }}
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
