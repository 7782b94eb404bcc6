"""The NATS servers: what they allow, and in a cluster how they run. See README.md of this folder."""
