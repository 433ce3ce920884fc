{{- /* The names of the parts are fixed: there is one mesh in a cluster, and the CA knows agents and control by the names of their accounts. */ -}}

{{- define "handfast.labels" -}}
app.kubernetes.io/name: handfast-{{ .component }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/part-of: handfast
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
{{- end }}

{{- define "handfast.selector" -}}
app.kubernetes.io/name: handfast-{{ .component }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end }}

{{- define "handfast.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end -}}
{{- end -}}
{{- end }}

{{- define "handfast.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Of CA, control and injector: Pod Security "restricted". */ -}}
{{- define "handfast.restrictedPod" -}}
runAsUser: 1337
runAsGroup: 1337
runAsNonRoot: true
fsGroup: 1337
# Keys are readable by their owner alone, and must stay so: whoever goes over all files at each mount lets the group read them.
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "handfast.restrictedContainer" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- /*
The operator socket is the last thing that a role opens; any answer on it says that the role has begun, and that its event loop turns. Its network
listeners speak mutual TLS alone, which a kubelet does not.
*/ -}}
{{- define "handfast.operatorProbe" -}}
exec:
  command:
    - node
    - -e
    - require('node:http').get({socketPath:'{{ . }}',path:'/'},()=>process.exit(0)).on('error',()=>process.exit(1))
timeoutSeconds: 10
{{- end }}

{{- define "handfast.probes" -}}
startupProbe:
{{ include "handfast.operatorProbe" . | indent 2 }}
  periodSeconds: 2
  failureThreshold: 150
readinessProbe:
{{ include "handfast.operatorProbe" . | indent 2 }}
  periodSeconds: 15
livenessProbe:
{{ include "handfast.operatorProbe" . | indent 2 }}
  periodSeconds: 60
  failureThreshold: 3
{{- end }}

{{- /* The roots, and the token by which a node's agent or control joins, once. */ -}}
{{- define "handfast.joinVolumes" -}}
- name: roots
  configMap:
    name: handfast-ca-root
    # Not there before the CA has begun: until then the pod waits.
    items:
      - key: root.pem
        path: root.pem
- name: node-token
  projected:
    defaultMode: 0400
    sources:
      - serviceAccountToken:
          audience: handfast-node
          expirationSeconds: 3600
          path: token
{{- end }}

{{- define "handfast.joinMounts" -}}
- name: roots
  mountPath: /var/run/secrets/handfast/roots
  readOnly: true
- name: node-token
  mountPath: /var/run/secrets/handfast/node
  readOnly: true
{{- end }}

{{- define "handfast.storage" -}}
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: handfast-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "handfast.labels" . | nindent 4 }}
  {{- if .storage.keep }}
  annotations:
    helm.sh/resource-policy: keep
  {{- end }}
spec:
  accessModes: [ReadWriteOnce]
  {{- with .storage.className }}
  storageClassName: {{ . }}
  {{- end }}
  resources:
    requests:
      storage: {{ .storage.size }}
{{- end }}

{{- define "handfast.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* "true" where sidecars may make their keys themselves. */ -}}
{{- define "handfast.inPod" -}}
{{- if or .Values.sidecar.allowInPod (eq .Values.sidecar.identity "in-pod") }}true{{ end -}}
{{- end }}

{{- /* Every replica of control, by its name. */ -}}
{{- define "handfast.controls" -}}
{{- $namespace := .Release.Namespace -}}
{{- range $index := until (int .Values.control.replicas) -}}
{{- if $index }},{{ end -}}
handfast-control-{{ $index }}.handfast-control.{{ $namespace }}.svc:15010
{{- end -}}
{{- end }}
