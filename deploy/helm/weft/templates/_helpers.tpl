{{- define "weft.name" -}}
{{- printf "%s" .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* Labels of a component: dict "root" $ "component" "registry" */}}
{{- define "weft.selector" -}}
app.kubernetes.io/name: weft
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "weft.labels" -}}
{{ include "weft.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{/* One of .Values.agents with the defaults: list $ agent -> YAML */}}
{{- define "weft.agent" -}}
{{- $root := index . 0 -}}
{{- mergeOverwrite (deepCopy $root.Values.agentDefaults) (deepCopy (index . 1)) | toYaml -}}
{{- end }}

{{- define "weft.image" -}}
{{- $own := .image | default dict -}}
{{- $tag := $own.tag | default .root.Values.image.tag | default .root.Chart.AppVersion -}}
{{- printf "%s:%s" ($own.repository | default .root.Values.image.repository) $tag | quote -}}
{{- end }}

{{- define "weft.podSecurity" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{- define "weft.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  privileged: false
  capabilities: {drop: [ALL]}
{{- end }}

{{- define "weft.spread" -}}
topologySpreadConstraints:
  {{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{ include "weft.selector" $ | nindent 8 }}
  {{- end }}
{{- end }}

{{/* dict "root" $ "component" "registry" "metrics" 7170 */}}
{{- define "weft.podMeta" -}}
labels:
  {{- include "weft.labels" . | nindent 2 }}
  {{- with .root.Values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- if or .root.Values.podAnnotations .root.Values.metrics.scrapeAnnotations }}
annotations:
  {{- if .root.Values.metrics.scrapeAnnotations }}
  prometheus.io/scrape: "true"
  prometheus.io/port: {{ .metrics | quote }}
  prometheus.io/path: /metrics
  {{- end }}
  {{- with .root.Values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "weft.databaseUrl" -}}
- name: WEFT_DATABASE_URL
  valueFrom:
    secretKeyRef: {name: {{ .Values.database.existingSecret }}, key: {{ .Values.database.key }}}
{{- end }}

{{- define "weft.redisUrl" -}}
- name: WEFT_REDIS_URL
  valueFrom:
    secretKeyRef: {name: {{ .root.Values.redis.existingSecret }}, key: {{ .key }}}
{{- end }}

{{/* What every part is told: dict "root" $ "env" {...} */}}
{{- define "weft.env" -}}
- {name: WEFT_MIGRATE, value: {{ .root.Values.migrations.enabled | ternary "off" "on" | quote }}}
- {name: WEFT_REGISTRY, value: "{{ include "weft.name" .root }}-registry:7070"}
- {name: WEFT_BROKER, value: "{{ include "weft.name" .root }}-broker:7072"}
- {name: WEFT_LOG_FORMAT, value: json}
- {name: WEFT_LOG_LEVEL, value: {{ .root.Values.logLevel }}}
- {name: WEFT_TRACE_SAMPLE, value: {{ .root.Values.traceSample | quote }}}
{{- with .root.Values.zone }}
- {name: WEFT_ZONE, value: {{ . | quote }}}
{{- end }}
{{- with .root.Values.otlpEndpoint }}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ . | quote }}}
{{- end }}
{{- with .root.Values.identity.trust }}
- {name: WEFT_IDENTITY_TRUST, value: {{ . | quote }}}
{{- end }}
{{- range $name, $value := merge (deepCopy (.env | default dict)) .root.Values.env }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}

{{/* The key that identities are signed with, for those who speak for callers. */}}
{{- define "weft.identityMount" -}}
- {name: identity, mountPath: /etc/weft/identity, readOnly: true}
{{- end }}
{{- define "weft.identityVolume" -}}
- name: identity
  secret:
    secretName: {{ .Values.identity.existingSecret }}
    defaultMode: 0440
    items: [{key: {{ .Values.identity.key }}, path: identity.pem}]
{{- end }}

{{/* The certificate of a part in the mesh: dict "root" $ "component" "registry" */}}
{{- define "weft.mtlsSecret" -}}
{{- get .root.Values.mtls.secrets .component | default (printf "%s-%s-mtls" (include "weft.name" .root) .component) -}}
{{- end }}
{{- define "weft.mtlsEnv" -}}
{{- if .Values.mtls.enabled }}
- {name: WEFT_MTLS, value: "on"}
- {name: WEFT_MTLS_TRUST_DOMAIN, value: {{ .Values.mtls.trustDomain }}}
- {name: WEFT_MTLS_CERTIFICATE, value: /etc/weft/mtls/tls.crt}
- {name: WEFT_MTLS_KEY, value: /etc/weft/mtls/tls.key}
- {name: WEFT_MTLS_CA, value: /etc/weft/mtls/ca.crt}
{{- end }}
{{- end }}
{{/* Which agents those may be whose certificates do not name them, for registry and brokers. */}}
{{- define "weft.mtlsAgents" -}}
{{- if .Values.mtls.enabled }}
{{- $rules := list }}
{{- with .Values.mtls.agents }}
{{- $rules = append $rules . }}
{{- end }}
{{- if .Values.mtls.issuerRef }}
{{- range .Values.agents }}
{{- $agent := include "weft.agent" (list $ .) | fromYaml }}
{{- $names := $agent.agents | default (list .name (printf "%s-*" .name)) | join " " }}
{{- $rules = append $rules (printf "%s=%s" (include "weft.deploymentId" (list $ .name)) $names) }}
{{- end }}
{{- end }}
{{- with $rules }}
- {name: WEFT_MTLS_AGENTS, value: {{ join ", " . | quote }}}
{{- end }}
{{- end }}
{{- end }}
{{/* The id of a deployment of agents, of which the chart does not know them all: list $ name */}}
{{- define "weft.deploymentId" -}}
{{- $root := index . 0 -}}
{{- printf "spiffe://%s/ns/%s/agents/%s" $root.Values.mtls.trustDomain $root.Release.Namespace (index . 1) -}}
{{- end }}
{{- define "weft.mtlsMount" -}}
{{- if .Values.mtls.enabled }}
- {name: mtls, mountPath: /etc/weft/mtls, readOnly: true}
{{- end }}
{{- end }}
{{- define "weft.mtlsVolume" -}}
{{- if .root.Values.mtls.enabled }}
- name: mtls
  secret: {secretName: {{ include "weft.mtlsSecret" . }}, defaultMode: 0440}
{{- end }}
{{- end }}

{{/* Probes by grpc.health.v1 at a port: dict "root" $ "port" 7070 */}}
{{- define "weft.probes" -}}
{{- if .root.Values.mtls.enabled }}
{{- /* The kubelet has no certificate: the part asks itself, which costs a process each time. */}}
startupProbe:
  exec: {command: [weft, health, "127.0.0.1:{{ .port }}"]}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 60
readinessProbe:
  exec: {command: [weft, health, "127.0.0.1:{{ .port }}"]}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 2
livenessProbe:
  exec: {command: [weft, health, "127.0.0.1:{{ .port }}"]}
  periodSeconds: 20
  timeoutSeconds: 10
  failureThreshold: 3
{{- else }}
startupProbe:
  grpc: {port: {{ .port }}}
  periodSeconds: 2
  timeoutSeconds: 3
  failureThreshold: 60
readinessProbe:
  grpc: {port: {{ .port }}}
  periodSeconds: 3
  timeoutSeconds: 3
  failureThreshold: 2
livenessProbe:
  grpc: {port: {{ .port }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 4
{{- end }}
{{- end }}

{{/* dict "root" $ "component" "registry" "replicas" 2 */}}
{{- define "weft.budget" -}}
{{- if and .root.Values.podDisruptionBudget.enabled (gt (int .replicas) 1) }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "weft.name" .root }}-{{ .component }}
  labels: {{ include "weft.labels" . | nindent 4 }}
spec:
  maxUnavailable: {{ .root.Values.podDisruptionBudget.maxUnavailable }}
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels: {{ include "weft.selector" . | nindent 6 }}
{{- end }}
{{- end }}

{{- define "weft.hpaHead" -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ include "weft.name" .root }}-{{ .component }}
  labels: {{ include "weft.labels" . | nindent 4 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: {{ include "weft.name" .root }}-{{ .component }}}
  minReplicas: {{ .scaling.min }}
  maxReplicas: {{ .scaling.max }}
  behavior:
    # What came in a burst may come again: pods go one by one, after five quiet minutes.
    scaleDown:
      stabilizationWindowSeconds: 300
      policies: [{type: Pods, value: 1, periodSeconds: 60}]
    scaleUp:
      stabilizationWindowSeconds: 0
      policies: [{type: Percent, value: 100, periodSeconds: 30}, {type: Pods, value: 4, periodSeconds: 30}]
{{- end }}
