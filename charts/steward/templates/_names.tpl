{{/* Prefix of every name. It is not cut: what is too long fails, because two cut names could be the same. */}}
{{- define "steward.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := .Values.fullnameOverride | default (ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name)) -}}
{{- if gt (len $full) 22 -}}
{{- fail (printf "the prefix %q of all names has more than 22 characters: choose a shorter release name, or set fullnameOverride" $full) -}}
{{- end -}}
{{- $full -}}
{{- end -}}

{{/* work_orders → work-orders */}}
{{- define "steward.dashed" -}}
{{- replace "_" "-" . -}}
{{- end -}}

{{/* Name of what belongs to a service and role. (dict "root" $ "service" "work_orders" "role" "api") */}}
{{- define "steward.name" -}}
{{- printf "%s-%s" (include "steward.fullname" .root) (include "steward.component" .) -}}
{{- end -}}

{{- define "steward.component" -}}
{{- if .service -}}
{{- printf "%s-%s" (include "steward.dashed" .service) .role -}}
{{- else -}}
{{- .role -}}
{{- end -}}
{{- end -}}

{{- define "steward.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* What every resource of the release has. */}}
{{- define "steward.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
app.kubernetes.io/part-of: steward
app.kubernetes.io/version: {{ default .Chart.AppVersion .Values.image.tag | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "steward.release" . }}
{{- end -}}

{{/* By which every pod of the release is found. */}}
{{- define "steward.release" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* By which the pods of one workload are found. These must never change: selectors of Deployments cannot. */}}
{{- define "steward.selector" -}}
{{ include "steward.release" .root }}
app.kubernetes.io/component: {{ include "steward.component" . }}
{{- end -}}

{{/* Beside the selector, by which NetworkPolicies find all processes of a role or of a service. */}}
{{- define "steward.kind" -}}
steward/role: {{ .role }}
{{- with .service }}
steward/service: {{ include "steward.dashed" . }}
{{- end }}
{{- end -}}

{{- define "steward.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "steward.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{/* What a role is given in one service: the role's values, and over them the service's. Returns JSON. */}}
{{- define "steward.role" -}}
{{- $own := dig .service .role (dict) .root.Values.services | default dict -}}
{{- mergeOverwrite (deepCopy (index .root.Values .role)) (deepCopy $own) | toJson -}}
{{- end -}}

{{/* Where the api of a service is: a headless Service, so that the client sees every pod and balances by itself. */}}
{{- define "steward.address" -}}
{{- printf "%s=%s.%s:%d" .service (include "steward.name" (dict "root" .root "service" .service "role" "api")) .root.Release.Namespace 50051 -}}
{{- end -}}

{{/* Names of the clusters that operators make. */}}
{{- define "steward.databaseCluster" -}}
{{- printf "%s-%s-db" (include "steward.fullname" .root) (include "steward.dashed" .service) -}}
{{- end -}}
{{- define "steward.brokerCluster" -}}
{{- printf "%s-broker" (include "steward.fullname" .) -}}
{{- end -}}

{{/* The queues that a service's worker consumes. */}}
{{- define "steward.queues" -}}
{{- get (dict
  "work_orders" "work_orders.directory work_orders.events"
  "renovation" "renovation.directory"
  "billing_reminders" "billing_reminders.directory billing_reminders.events"
  "surveys" "surveys.directory surveys.events"
  "notifications" "notifications.directory notifications.events"
  "governance" "governance.directory governance.events"
) . -}}
{{- end -}}

{{/* The head of a NetworkPolicy. (dict "root" $ "name" …) */}}
{{- define "steward.policy" }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "steward.fullname" .root }}-{{ .name }}
  labels: {{- include "steward.labels" .root | nindent 4 }}
{{- end }}
