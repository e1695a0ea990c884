{{- /* The names of all objects are fixed, as the documentation and the operator's messages say them. */}}
{{- define "operator.labels" -}}
app.kubernetes.io/name: security-group-operator
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{- define "operator.selector" -}}
app.kubernetes.io/name: security-group-operator
{{- end }}

{{- /* Of the pods of hooks: not the operator's, so that neither its Deployment nor a PodMonitor takes them for it. */}}
{{- define "operator.hookLabels" -}}
app.kubernetes.io/name: security-group-operator-check
{{- end }}

{{- define "operator.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- define "operator.subject" -}}
- kind: ServiceAccount
  name: security-group-operator
  namespace: {{ .Release.Namespace }}
{{- end }}

{{- /* Whether the operator reads ClusterCloudAccounts: "true" or empty. */}}
{{- define "operator.clusterCloudAccounts" -}}
{{- if or (not .Values.namespaces) .Values.rbac.clusterCloudAccounts }}true{{ end }}
{{- end }}

{{- define "operator.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "operator.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- /* The pod of a hook: the operator's image with a subcommand that looks and ends. */}}
{{- define "operator.hookPod" -}}
restartPolicy: Never
serviceAccountName: security-group-operator
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "operator.podSecurity" .root | nindent 2 }}
{{- with .root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
containers:
- name: {{ .command }}
  image: {{ include "operator.image" .root | quote }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  args:
  - --leader-elect
  - --operator-namespace={{ .root.Release.Namespace }}
  {{- range .root.Values.namespaces }}
  - --namespace={{ . }}
  {{- end }}
  {{- if .root.Values.operator.nodeConditions }}
  - --node-conditions
  {{- end }}
  - {{ .command }}
  resources:
    requests:
      cpu: 10m
      memory: 32Mi
    limits:
      memory: 64Mi
  securityContext:
    {{- include "operator.containerSecurity" .root | nindent 4 }}
{{- end }}
