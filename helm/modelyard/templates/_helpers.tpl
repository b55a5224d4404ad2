{{- define "modelyard.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "modelyard.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "modelyard.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "modelyard.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Names of cluster-scoped objects carry the namespace, so that two namespaced installs do not collide. */}}
{{- define "modelyard.clusterName" -}}
{{- if and (eq .Release.Namespace (include "modelyard.fullname" .)) -}}
{{- include "modelyard.fullname" . -}}
{{- else -}}
{{- printf "%s-%s" .Release.Namespace (include "modelyard.fullname" .) -}}
{{- end -}}
{{- end -}}

{{- define "modelyard.selector" -}}
app.kubernetes.io/name: {{ include "modelyard.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "modelyard.labels" -}}
{{ include "modelyard.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: modelyard
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "modelyard.serviceAccountName" -}}
{{- default (printf "%s-operator" (include "modelyard.fullname" .)) .Values.serviceAccount.name -}}
{{- end -}}

{{/* An image's reference: (list . "operator") */}}
{{- define "modelyard.image" -}}
{{- $root := index . 0 -}}
{{- $image := index $root.Values.images (index . 1) -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default $root.Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "modelyard.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "modelyard.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "modelyard.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "modelyard.prometheusUrl" -}}
{{- if .Values.prometheus.url -}}
{{- .Values.prometheus.url -}}
{{- else if .Values.prometheus.enabled -}}
{{- printf "http://%s-prometheus.%s.svc.%s:9090" (include "modelyard.fullname" .) .Release.Namespace .Values.clusterDomain -}}
{{- end -}}
{{- end -}}

{{/* The password of the chart's Valkey: given, or what is there, or a new one; the same wherever one rendering asks. */}}
{{- define "modelyard.valkeyPassword" -}}
{{- if .Values.valkey.password -}}
{{- .Values.valkey.password -}}
{{- else -}}
{{- if not (hasKey .Values.valkey "madeUp") -}}
{{- $there := lookup "v1" "Secret" .Release.Namespace (printf "%s-valkey" (include "modelyard.fullname" .)) -}}
{{- $kept := dig "data" "password" "" (default dict $there) | b64dec -}}
{{- $_ := set .Values.valkey "madeUp" (default (randAlphaNum 32) $kept) -}}
{{- end -}}
{{- .Values.valkey.madeUp -}}
{{- end -}}
{{- end -}}

{{- define "modelyard.onlineUrl" -}}
{{- if .Values.onlineStore.url -}}
{{- .Values.onlineStore.url -}}
{{- else if .Values.valkey.enabled -}}
{{- printf "redis://:%s@%s-valkey.%s.svc.%s:6379/0" (include "modelyard.valkeyPassword" . | urlquery) (include "modelyard.fullname" .) .Release.Namespace .Values.clusterDomain -}}
{{- end -}}
{{- end -}}

{{- define "modelyard.artifactUri" -}}
{{- if eq .Values.artifactStore.type "s3" -}}
{{- with .Values.artifactStore.s3 -}}
s3://{{ required "artifactStore.s3.bucket: a bucket is needed when artifactStore.type is s3" .bucket }}{{ with .prefix }}/{{ . }}{{ end }}
{{- end -}}
{{- else -}}
file:///artifacts
{{- end -}}
{{- end -}}

{{/* Namespaces that Prometheus looks into; empty: all. */}}
{{- define "modelyard.scraped" -}}
{{- if .Values.watchNamespaces -}}
{{- concat .Values.watchNamespaces .Values.tenants (list .Release.Namespace) | uniq | sortAlpha | toJson -}}
{{- else -}}
[]
{{- end -}}
{{- end -}}

{{/* What the operator may do in the namespaces that it looks after. It must itself hold what it grants to the routers. */}}
{{- define "modelyard.operatorRules" -}}
- apiGroups: [modelyard.dev]
  resources: [featureviews, trainingpipelines, pipelineruns, models, modelversions, servingdeployments]
  verbs: [get, list, watch]
- apiGroups: [modelyard.dev]
  resources: [featureviews/status, trainingpipelines/status, pipelineruns/status, models/status, modelversions/status, servingdeployments/status]
  verbs: [get, patch, update]
- apiGroups: [modelyard.dev]
  resources: [pipelineruns, modelversions]
  verbs: [create, patch]
- apiGroups: [modelyard.dev]
  resources: [models]
  verbs: [create]
- apiGroups: [modelyard.dev]      # history limits
  resources: [pipelineruns]
  verbs: [delete]
- apiGroups: [modelyard.dev]      # to be named as a blocking owner, where that is enforced
  resources: [featureviews/finalizers, trainingpipelines/finalizers, pipelineruns/finalizers, models/finalizers, servingdeployments/finalizers]
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [controllerrevisions]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services, configmaps, serviceaccounts]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list]
- apiGroups: [rbac.authorization.k8s.io]      # for the routers' ServiceAccounts
  resources: [roles, rolebindings]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [discovery.k8s.io]               # what is granted to the routers
  resources: [endpointslices]
  verbs: [get, list, watch]
- apiGroups: ["", events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}
