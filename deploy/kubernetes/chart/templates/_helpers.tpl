{{- define "trace502.name" -}}
{{- printf "%s" .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "trace502.labels" -}}
app.kubernetes.io/name: trace502
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "trace502.selector" -}}
app.kubernetes.io/name: trace502
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "trace502.secret" -}}
{{- .Values.token.existingSecret | default (printf "%s-token" (include "trace502.name" .)) -}}
{{- end -}}
