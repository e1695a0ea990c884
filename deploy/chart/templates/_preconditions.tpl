{{- /*
Refuses values that exclude each other, and a release beside another one that works in the same namespaces. Looks only at kinds that
this release itself creates, so that it needs no other right; `helm template` sees no cluster and refuses no release.
*/}}
{{- define "operator.preconditions" -}}
{{- if and .Values.operator.nodeConditions .Values.namespaces }}
{{- fail "operator.nodeConditions cannot be used with `namespaces`: it needs a right on all Nodes, and the operator of another namespace could write the same condition of the same Node; leave out one of both" }}
{{- end }}
{{- $roles := list }}
{{- if .Values.rbac.create }}
{{- range .Values.namespaces }}
{{- $roles = append $roles (lookup "rbac.authorization.k8s.io/v1" "Role" . "security-group-operator") }}
{{- end }}
{{- if include "operator.clusterCloudAccounts" . }}
{{- $roles = append $roles (lookup "rbac.authorization.k8s.io/v1" "ClusterRole" "" "security-group-operator") }}
{{- end }}
{{- if not .Values.namespaces }}
{{- $all := lookup "rbac.authorization.k8s.io/v1" "Role" "" "" }}
{{- range $all.items }}
{{- if eq .metadata.name "security-group-operator" }}{{ $roles = append $roles . }}{{ end }}
{{- end }}
{{- end }}
{{- end }}
{{- if .Values.userRoles.create }}
{{- $roles = append $roles (lookup "rbac.authorization.k8s.io/v1" "ClusterRole" "" "security-group-operator-edit") }}
{{- end }}
{{- range $roles }}
{{- $annotations := dig "metadata" "annotations" dict (. | default dict) }}
{{- $name := get $annotations "meta.helm.sh/release-name" }}
{{- $namespace := get $annotations "meta.helm.sh/release-namespace" }}
{{- if and $name (or (ne $name $.Release.Name) (ne $namespace $.Release.Namespace)) }}
{{- $object := printf "%s %s" .kind .metadata.name }}
{{- with .metadata.namespace }}{{ $object = printf "%s of namespace %s" $object . }}{{ end }}
{{- fail (printf "release %s in namespace %s already has the %s, and two operators must not work in the same namespaces: upgrade or uninstall that release; or give each its own `namespaces`: first that one, with admissionPolicies.operators={system:serviceaccount:%s:security-group-operator}, then this one, with crds.install, userRoles.create and admissionPolicies.create set to false (docs/sizing.md)" $name $namespace $object $.Release.Namespace) }}
{{- end }}
{{- end }}
{{- end }}
