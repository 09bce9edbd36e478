{{/* What the names of all objects begin with. */}}
{{- define "safetake.name" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 30 | trimSuffix "-" -}}
{{- end -}}

{{/* The labels by which the pods are found. */}}
{{- define "safetake.selector" -}}
app.kubernetes.io/name: safetake
app.kubernetes.io/instance: {{ include "safetake.name" . }}
{{- end -}}

{{- define "safetake.labels" -}}
{{- with .Values.labels }}
{{ toYaml . }}
{{- end }}
{{ include "safetake.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "safetake.metadata" -}}
namespace: {{ .Release.Namespace | quote }}
labels:
  {{- include "safetake.labels" . | trim | nindent 2 }}
{{- end -}}

{{/* The image, which must have a digest. */}}
{{- define "safetake.image" -}}
{{- $image := required "image.reference is missing: the image with its digest" .Values.image.reference -}}
{{- if not (or .Values.image.allowUnpinned (regexMatch "@sha256:[0-9a-f]{64}$" $image)) -}}
{{- fail "image.reference has no digest, so that another image could run tomorrow: write IMAGE@sha256:… (or set image.allowUnpinned)" -}}
{{- end -}}
{{- $image -}}
{{- end -}}

{{/* `spec` of a Job: an answer of safetake is final, a lost pod is made again. */}}
{{- define "safetake.job" -}}
backoffLimit: 2
activeDeadlineSeconds: {{ int64 .job.activeDeadlineSeconds }}
podFailurePolicy:
  rules:
    - action: FailJob
      onExitCodes:
        containerName: safetake
        operator: In
        values: [1, 2, 3, 10, 11, 12]
    - action: Ignore
      onPodConditions:
        - type: DisruptionTarget
          status: "True"
template:
  {{- include "safetake.pod" (dict "root" .root "arguments" (list "run" .job.job) "daemon" false) | nindent 2 }}
{{- end -}}
