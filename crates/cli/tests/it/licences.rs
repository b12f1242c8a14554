//! Every dependency carries a licence that permits what an Apache-2.0 program does with it.

use crate::arrows::metadata;

/// Licences that ask for no more than notices.
const PERMISSIVE: [&str; 15] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

#[test]
fn every_dependency_is_permissively_licensed() {
    let metadata = metadata();
    let mut refused = Vec::new();
    for package in &metadata.packages {
        let license = package.license.as_deref().unwrap_or("none stated");
        if !permits(license) {
            refused.push(format!("{} {}: {license}", package.name, package.version));
        }
    }
    assert!(metadata.packages.len() > 100, "the dependencies were not listed");
    assert!(refused.is_empty(), "licences to look at:\n{}", refused.join("\n"));
}

/// Whether one of the alternatives of an SPDX expression consists of permissive licences only.
fn permits(expression: &str) -> bool {
    // The old way to write OR.
    let expression = expression.replace('/', " OR ");
    let mut tokens = Vec::new();
    for word in expression.replace('(', " ( ").replace(')', " ) ").split_whitespace() {
        match (tokens.last_mut(), word) {
            (_, "OR" | "AND" | "(" | ")") => tokens.push(word.to_string()),
            (Some(last), word) if !["OR", "AND", "(", ")"].contains(&last.as_str()) => {
                last.push(' ');
                last.push_str(word);
            }
            _ => tokens.push(word.to_string()),
        }
    }
    let mut position = 0;
    let result = any(&tokens, &mut position);
    result && position == tokens.len()
}

fn any(tokens: &[String], position: &mut usize) -> bool {
    let mut result = all(tokens, position);
    while tokens.get(*position).is_some_and(|token| token == "OR") {
        *position += 1;
        let other = all(tokens, position);
        result = result || other;
    }
    result
}

fn all(tokens: &[String], position: &mut usize) -> bool {
    let mut result = one(tokens, position);
    while tokens.get(*position).is_some_and(|token| token == "AND") {
        *position += 1;
        let other = one(tokens, position);
        result = result && other;
    }
    result
}

fn one(tokens: &[String], position: &mut usize) -> bool {
    let Some(token) = tokens.get(*position) else { return false };
    *position += 1;
    if token == "(" {
        let result = any(tokens, position);
        *position += 1;
        return result;
    }
    PERMISSIVE.contains(&token.as_str())
}

#[test]
fn licence_expressions_are_read_as_spdx_means_them() {
    for (expression, expected) in [
        ("MIT", true),
        ("MIT/Apache-2.0", true),
        ("GPL-3.0-only", false),
        ("GPL-3.0-only OR MIT", true),
        ("MIT AND GPL-3.0-only", false),
        ("(MIT OR GPL-2.0-only) AND Unicode-3.0", true),
        ("Apache-2.0 WITH LLVM-exception OR MPL-2.0", true),
        ("MPL-2.0", false),
        ("none stated", false),
    ] {
        assert_eq!(permits(expression), expected, "{expression}");
    }
}
