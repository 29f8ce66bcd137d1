{{/* A variable whose value stands in a Secret. */}}
{{- define "steward.secret" -}}
- name: {{ .name }}
  valueFrom:
    secretKeyRef: {name: {{ .secret | quote }}, key: {{ .key | quote }}}
{{- end -}}

{{/* Where the database is. `owner`: as the role that owns the schema. */}}
{{- define "steward.databaseVariables" -}}
{{- $values := .root.Values -}}
{{- $variable := ternary "STEWARD_MIGRATE_URL" "STEWARD_DATABASE_URL" .owner -}}
{{- if $values.postgresql.enabled -}}
{{- $cluster := include "steward.databaseCluster" . -}}
{{- if .owner }}
{{ include "steward.secret" (dict "name" $variable "secret" (printf "%s-app" $cluster) "key" "uri") }}
{{- else }}
{{ include "steward.secret" (dict "name" "PGPASSWORD" "secret" (replace "{service}" (include "steward.dashed" .service) $values.postgresql.roleSecret) "key" "password") }}
- name: {{ $variable }}
  value: {{ printf "postgresql://%s@%s-rw.%s.svc:5432/%s" .service $cluster .root.Release.Namespace .service | quote }}
{{- end }}
{{- else -}}
{{- $database := mergeOverwrite (deepCopy $values.database) (deepCopy (dig .service "database" (dict) $values.services)) -}}
{{- $key := ternary $database.migrateUrlKey $database.urlKey .owner }}
{{ include "steward.secret" (dict "name" $variable "secret" $database.existingSecret "key" $key) }}
{{- end }}
{{- if include "steward.databaseCA" . }}
- {name: PGSSLMODE, value: verify-full}
- {name: PGSSLROOTCERT, value: /etc/steward/database/ca.crt}
{{- end }}
{{- end -}}

{{/* Name of the Secret whose ca.crt signs the server's certificate; empty when there is none. */}}
{{- define "steward.databaseCA" -}}
{{- if .root.Values.postgresql.enabled -}}
{{- printf "%s-ca" (include "steward.databaseCluster" .) -}}
{{- else -}}
{{- get (mergeOverwrite (deepCopy .root.Values.database) (deepCopy (dig .service "database" (dict) .root.Values.services))) "caSecret" -}}
{{- end -}}
{{- end -}}

{{- define "steward.brokerVariables" -}}
{{- if .root.Values.rabbitmq.enabled -}}
{{- $cluster := include "steward.brokerCluster" .root -}}
{{- $secret := printf "%s-default-user" $cluster }}
{{ include "steward.secret" (dict "name" "BROKER_USERNAME" "secret" $secret "key" "username") }}
{{ include "steward.secret" (dict "name" "BROKER_PASSWORD" "secret" $secret "key" "password") }}
- name: STEWARD_AMQP_URL
  value: {{ printf "amqp://$(BROKER_USERNAME):$(BROKER_PASSWORD)@%s.%s.svc:5672/" $cluster .root.Release.Namespace | quote }}
{{- else }}
{{ include "steward.secret" (dict "name" "STEWARD_AMQP_URL" "secret" .root.Values.broker.existingSecret "key" .root.Values.broker.urlKey) }}
{{- end }}
{{- end -}}

{{/* What a process of a service is told: no more than its role reads. (dict "root" $ "service" … "role" … "own" …) */}}
{{- define "steward.variables" -}}
{{- $root := .root -}}{{- $values := .root.Values -}}{{- $keys := $values.keys.existingSecret -}}
{{- $residents := eq .service "residents" -}}
- {name: STEWARD_LOG_FORMAT, value: {{ $values.log.format | quote }}}
{{- if eq .role "migrate" }}
{{- include "steward.databaseVariables" (dict "root" $root "service" .service "owner" true) }}
{{- else }}
{{- if ne .role "wait" }}
- {name: STEWARD_BIND, value: 0.0.0.0}
- {name: STEWARD_HTTP_PORT, value: "9100"}
{{- end }}
{{- include "steward.databaseVariables" (dict "root" $root "service" .service "owner" false) }}
{{- end }}
{{- if has .role (list "worker" "relay" "migrate") }}
{{- include "steward.brokerVariables" . }}
{{- end }}
{{- if eq .role "worker" }}
- {name: STEWARD_POOL_SIZE, value: {{ .own.poolSize | toJson | quote }}}
{{- end }}
{{- if eq .role "api" }}
- {name: STEWARD_GRPC_PORT, value: "50051"}
- {name: STEWARD_API_THREADS, value: {{ .own.threads | toJson | quote }}}
- {name: STEWARD_API_QUEUE, value: {{ .own.queue | toJson | quote }}}
- {name: STEWARD_API_CONNECTION_AGE, value: {{ .own.connectionAge | toJson | quote }}}
- name: STEWARD_ADDRESSES
  value: {{ include "steward.address" (dict "root" $root "service" "residents") | quote }}
{{ include "steward.secret" (dict "name" "STEWARD_IDENTITY_PUBLIC_KEYS" "secret" $keys "key" "identity-public-keys") }}
{{ include "steward.secret" (dict "name" "STEWARD_INTERNAL_TOKEN" "secret" $keys "key" "internal-token") }}
{{- if $residents }}
{{ include "steward.secret" (dict "name" "STEWARD_IDENTITY_KEY" "secret" $keys "key" "identity-key") }}
{{- end }}
{{- end }}
{{- if and $residents (has .role (list "api" "jobs")) }}
{{ include "steward.secret" (dict "name" "STEWARD_DATA_KEY" "secret" $keys "key" "data-key") }}
{{- with $values.sms }}
{{- if .url }}
- {name: STEWARD_SMS_URL, value: {{ .url | quote }}}
{{- if eq $.role "jobs" }}
- {name: STEWARD_SMS_SENDER, value: {{ .sender | quote }}}
- {name: STEWARD_SMS_TEMPLATE, value: {{ .template | quote }}}
- {name: STEWARD_SMS_TIMEOUT, value: {{ .timeout | toJson | quote }}}
{{- if .existingSecret }}
{{ include "steward.secret" (dict "name" "STEWARD_SMS_TOKEN" "secret" .existingSecret "key" .tokenKey) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* What a process of the gateway is told. */}}
{{- define "steward.gatewayVariables" -}}
{{- $root := . -}}{{- $gateway := .Values.gateway -}}
- {name: STEWARD_LOG_FORMAT, value: {{ .Values.log.format | quote }}}
- {name: STEWARD_BIND, value: 0.0.0.0}
- {name: STEWARD_PORT, value: "8080"}
- {name: STEWARD_HTTP_PORT, value: "9100"}
- name: STEWARD_ADDRESSES
  {{- $addresses := list }}
  {{- range $service, $_ := .Values.services }}{{ $addresses = append $addresses (include "steward.address" (dict "root" $root "service" $service)) }}{{ end }}
  value: {{ join "," $addresses | quote }}
{{ include "steward.secret" (dict "name" "STEWARD_INTERNAL_TOKEN" "secret" .Values.keys.existingSecret "key" "internal-token") }}
- {name: STEWARD_GATEWAY_DRAIN_DELAY, value: {{ $gateway.drainDelay | toJson | quote }}}
- {name: STEWARD_GATEWAY_DRAIN_TIMEOUT, value: {{ $gateway.drainTimeout | toJson | quote }}}
{{- with $gateway.corsOrigins }}
- {name: STEWARD_CORS_ORIGINS, value: {{ join "," . | quote }}}
{{- end }}
{{- with $gateway.trustedProxies }}
- {name: STEWARD_GATEWAY_TRUSTED_PROXIES, value: {{ join "," . | quote }}}
{{- end }}
{{- range $name, $value := $gateway.settings }}
- {name: STEWARD_GATEWAY_{{ snakecase $name | upper }}, value: {{ $value | toJson | quote }}}
{{- end }}
{{- end -}}

{{/* The metadata of a pod. (dict "root" $ "service" … "role" …) */}}
{{- define "steward.podMetadata" -}}
labels: # neither the chart's version nor anything else that would restart pods for nothing
  {{- include "steward.selector" . | nindent 2 }}
  app.kubernetes.io/part-of: steward
  app.kubernetes.io/version: {{ default .root.Chart.AppVersion .root.Values.image.tag | quote }}
  {{- include "steward.kind" . | nindent 2 }}
  {{- with .root.Values.podLabels }}{{ toYaml . | nindent 2 }}{{ end }}
{{- with .root.Values.podAnnotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* What every pod has beside its containers. */}}
{{- define "steward.podSpec" -}}
{{- $values := .root.Values -}}
serviceAccountName: {{ include "steward.serviceAccount" .root }}
automountServiceAccountToken: false
enableServiceLinks: false # or a Service called steward would set STEWARD_PORT
securityContext:
  runAsNonRoot: true
  {{- with $values.security.runAsUser }}
  runAsUser: {{ toJson . }}
  runAsGroup: {{ toJson . }}
  fsGroup: {{ toJson . }}
  {{- end }}
  seccompProfile: {type: RuntimeDefault}
{{- with $values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
volumes:
  - name: tmp
    emptyDir: {sizeLimit: 256Mi}
  {{- if .service }}
  {{- with include "steward.databaseCA" . }}
  - name: database-ca
    secret: {secretName: {{ . }}, items: [{key: ca.crt, path: ca.crt}]}
  {{- end }}
  {{- end }}
{{- end -}}

{{/* What every container has beside its command. */}}
{{- define "steward.container" -}}
image: {{ include "steward.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
resources: {{- toYaml .own.resources | nindent 2 }}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  {{- if .service }}
  {{- if include "steward.databaseCA" . }}
  - {name: database-ca, mountPath: /etc/steward/database, readOnly: true}
  {{- end }}
  {{- end }}
{{- end -}}

{{- define "steward.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: metrics}
  {{- toYaml .Values.probes.startup | nindent 2 }}
livenessProbe:
  httpGet: {path: /healthz, port: metrics}
  {{- toYaml .Values.probes.liveness | nindent 2 }}
readinessProbe:
  httpGet: {path: /readyz, port: metrics}
  {{- toYaml .Values.probes.readiness | nindent 2 }}
{{- end -}}

{{- define "steward.spread" -}}
topologySpreadConstraints:
  {{- range .root.Values.spread.topologyKeys }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: {{ $.root.Values.spread.whenUnsatisfiable }}
    labelSelector:
      matchLabels: {{- include "steward.selector" $ | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end -}}
