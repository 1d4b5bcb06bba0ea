//! For tests only: some value of every wire type, and the tables of `docs/protocol.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Where sample values come from: readable ones for the documentation, or by seed.
pub struct Source {
    state: u64,
    plain: bool,
    counter: u64,
}

impl Source {
    /// Small numbers in ascending order, "orders", one item a list, every optional present.
    pub fn plain() -> Source {
        Source { state: 0, plain: true, counter: 0 }
    }

    /// Any values, the same for the same seed.
    pub fn seeded(seed: u64) -> Source {
        Source { state: seed, plain: false, counter: 0 }
    }

    fn next(&mut self) -> u64 {
        // splitmix64
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn number(&mut self) -> u64 {
        if self.plain {
            self.counter += 1;
            return self.counter;
        }
        match self.next() % 4 {
            0 => 0,
            1 => u64::MAX,
            2 => self.next() % 1000,
            _ => self.next(),
        }
    }

    pub fn choose(&mut self, count: usize) -> usize {
        if self.plain { 0 } else { (self.next() % count as u64) as usize }
    }

    pub fn present(&mut self) -> bool {
        self.plain || self.next().is_multiple_of(2)
    }

    pub fn len(&mut self) -> usize {
        if self.plain { 1 } else { (self.next() % 4) as usize }
    }

    pub fn text(&mut self) -> String {
        if self.plain {
            return "abc".to_owned();
        }
        let len = self.next() % 20;
        (0..len).map(|_| ['a', 'é', '\n', '漢', '\u{1f600}'][self.choose(5)]).collect()
    }

    pub fn name(&mut self) -> String {
        if self.plain {
            return "orders".to_owned();
        }
        let len = 1 + self.next() % 249;
        let mut name: String =
            (0..len).map(|_| ['a', 'Z', '0', '_', '-', '.'][self.choose(6)]).collect();
        if name == "." || name == ".." {
            name.push('x');
        }
        name
    }
}

/// Tag, name, fields with their types, meaning.
pub type Variant = (u64, &'static str, Vec<(&'static str, String)>, &'static str);

/// The tables of the documentation, by name of the struct.
#[derive(Default)]
pub struct Docs {
    tables: BTreeMap<String, String>,
}

impl Docs {
    /// Adds a struct's table; answers the name under which fields refer to it.
    pub fn add(
        &mut self,
        module: &str,
        name: &str,
        doc: &str,
        fields: Vec<(&'static str, String, &'static str)>,
    ) -> String {
        let frame = module.rsplit("::").next().unwrap_or(module);
        let full = match name {
            "Request" | "Response" => format!("{frame}.{name}"),
            _ => name.to_owned(),
        };
        let mut table = format!("{}\n", doc.trim());
        if fields.is_empty() {
            table.push_str("\nNo fields: the control part is empty.\n");
        } else {
            table.push_str("\n| field | type | meaning |\n|---|---|---|\n");
        }
        for (field, kind, meaning) in fields {
            let _ = writeln!(table, "| {field} | {kind} | {} |", meaning.trim());
        }
        self.tables.insert(full.clone(), table);
        full
    }

    /// Adds an enum's table.
    pub fn add_enum(&mut self, name: &str, variants: Vec<Variant>) -> String {
        let mut table = String::from("| tag (u8) | name | then | meaning |\n|---|---|---|---|\n");
        for (tag, variant, fields, meaning) in variants {
            let fields: Vec<String> =
                fields.into_iter().map(|(field, kind)| format!("{field}: {kind}")).collect();
            let then = if fields.is_empty() { "-".to_owned() } else { fields.join(", ") };
            let _ = writeln!(table, "| {tag} | {variant} | {then} | {} |", meaning.trim());
        }
        self.tables.insert(name.to_owned(), table);
        name.to_owned()
    }

    pub fn table(&self, name: &str) -> Option<&str> {
        self.tables.get(name).map(String::as_str)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tables.keys().map(String::as_str)
    }
}
