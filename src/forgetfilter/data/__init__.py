"""From files to rows: containers, formats, public sources, mixtures, bundled packs."""
