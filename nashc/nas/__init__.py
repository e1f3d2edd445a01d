"""Neural architecture search: spaces of hybrid networks, zero-shot proxies, training, joint search. docs/nas.md."""
