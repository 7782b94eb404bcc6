module orbweaver.test/schemas

go 1.24.0

require github.com/cert-manager/cert-manager v1.18.2

require github.com/prometheus-operator/prometheus-operator v0.85.0
