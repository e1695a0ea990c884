# The operator and the certificate authorities, and nothing else. deploy/image/build puts both into target/oci/rootfs first:
# `make image` builds all of it, and after `deploy/image/build rootfs` any other builder takes this file as well.
FROM scratch
COPY target/oci/rootfs/ /
EXPOSE 8080
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/security-group-operator"]
