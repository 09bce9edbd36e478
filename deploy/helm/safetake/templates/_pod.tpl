{{/* The pod, the same for every mode: not root, nothing of the root file system writable, no capability. */}}
{{- define "safetake.pod" -}}
{{- $v := .root.Values -}}
metadata:
  labels:
    {{- with $v.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- include "safetake.selector" .root | nindent 4 }}
    app.kubernetes.io/component: {{ ternary "daemon" "job" .daemon }}
  annotations:
    {{- with $v.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    checksum/config: {{ $v.config | sha256sum }}
spec:
  serviceAccountName: {{ include "safetake.name" .root }}
  automountServiceAccountToken: {{ $v.api }}
  enableServiceLinks: false
  restartPolicy: {{ ternary "Always" "Never" .daemon }}
  terminationGracePeriodSeconds: {{ int64 $v.terminationGracePeriodSeconds }}
  securityContext:
    runAsNonRoot: true
    runAsUser: {{ int64 $v.user }}
    runAsGroup: {{ int64 $v.group }}
    fsGroup: {{ int64 $v.fsGroup }}
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile:
      type: RuntimeDefault
  containers:
    - name: safetake
      image: {{ include "safetake.image" .root | quote }}
      imagePullPolicy: IfNotPresent
      command: ["safetake"]
      args: {{ toJson .arguments }}
      env:
        - name: HOME
          value: /tmp
        - name: SAFETAKE_CONFIG
          value: /etc/safetake/safetake.toml
        - name: SAFETAKE_HOST
          value: {{ printf "%s.%s" (include "safetake.name" .root) .root.Release.Namespace | quote }}
        - name: XDG_CACHE_HOME
          value: /var/lib/safetake/cache
        - name: XDG_STATE_HOME
          value: /var/lib
        {{- range $v.secrets.variables }}
        - name: {{ .name | quote }}
          valueFrom:
            secretKeyRef:
              name: {{ .secret | quote }}
              key: {{ .key | quote }}
        {{- end }}
      resources:
        {{- toYaml $v.resources | nindent 8 }}
      securityContext:
        allowPrivilegeEscalation: false
        capabilities:
          drop: [ALL]
        privileged: false
        readOnlyRootFilesystem: true
        runAsNonRoot: true
      volumeMounts:
        - name: tmp
          mountPath: /tmp
        {{- if not $v.state.onVolume }}
        - name: state
          mountPath: /var/lib/safetake
        {{- end }}
        {{- range $number, $folder := $v.secrets.folders }}
        - name: files-{{ $number }}
          mountPath: {{ $folder.path | quote }}
          readOnly: true
        {{- end }}
        {{- range $v.volumes }}
        - name: {{ .name | quote }}
          mountPath: {{ .mount | quote }}
          {{- with .subPath }}
          subPath: {{ . | quote }}
          {{- end }}
          {{- if .readOnly }}
          readOnly: true
          {{- end }}
        {{- end }}
      {{- if .daemon }}
      ports:
        - name: metrics
          containerPort: {{ int $v.daemon.port }}
          protocol: TCP
      startupProbe:
        httpGet: {path: /healthz, port: metrics}
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: 60
      livenessProbe:
        httpGet: {path: /healthz, port: metrics}
        periodSeconds: 20
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /readyz, port: metrics}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 3
      {{- end }}
  volumes:
    - name: tmp
      emptyDir:
        sizeLimit: {{ $v.scratch | quote }}
    {{- if not $v.state.onVolume }}
    - name: state
      emptyDir:
        sizeLimit: 1Gi
    {{- end }}
    {{- range $number, $folder := $v.secrets.folders }}
    - name: files-{{ $number }}
      projected:
        defaultMode: 288
        sources:
          {{- if eq $number 0 }}
          - configMap:
              name: {{ include "safetake.name" $.root }}
          {{- end }}
          {{- range $folder.files }}
          - secret:
              name: {{ .secret | quote }}
              items:
                - key: {{ .key | quote }}
                  path: {{ .path | quote }}
          {{- end }}
    {{- end }}
    {{- $seen := dict }}
    {{- range $v.volumes }}
    {{- if not (hasKey $seen .claim) }}
    {{- $_ := set $seen .claim true }}
    - name: {{ .name | quote }}
      persistentVolumeClaim:
        claimName: {{ .claim | quote }}
    {{- end }}
    {{- end }}
  {{- with $v.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $v.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . | quote }}
    {{- end }}
  {{- end }}
  {{- with $v.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $v.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $v.priorityClassName }}
  priorityClassName: {{ . | quote }}
  {{- end }}
{{- end -}}
