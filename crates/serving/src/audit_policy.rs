//! What the audit log keeps of one tenant's requests, as its policy holds it.

use serde::{Deserialize, Serialize};

use crate::age::Recipient;
use crate::error::ServingError;

/// Keys that conversations are sealed for: those of a few people and one in a safe.
pub const MOST_RECIPIENTS: usize = 16;

/// Which parts of its conversations a tenant wants kept, and for whom they are sealed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditPolicy {
    pub content: AuditContent,
    /// Public keys of age (`age1…`) whose secret halves the tenant holds. The server can read nothing that it keeps.
    pub recipients: Vec<String>,
}

/// Parts of conversations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuditContent {
    /// Nothing is kept.
    #[default]
    None,
    Prompts,
    Answers,
    Both,
}

impl AuditContent {
    /// Whether prompts are kept.
    pub fn has_prompts(self) -> bool {
        matches!(self, AuditContent::Prompts | AuditContent::Both)
    }

    /// Whether answers are kept.
    pub fn has_answers(self) -> bool {
        matches!(self, AuditContent::Answers | AuditContent::Both)
    }
}

impl AuditPolicy {
    /// Refuses keys that nothing can be sealed for, and conversations that would be kept for nobody.
    pub fn check(&self) -> Result<(), ServingError> {
        let wrong = |expected: String, found: String| {
            Err(ServingError::Setting { key: "audit.recipients", expected, found })
        };
        if self.content != AuditContent::None && self.recipients.is_empty() {
            let expected = "at least one public key of age (age1…) where `audit.content` is not `none`: \
                            `eulalia audit keygen` or `age-keygen` makes a pair, and the tenant keeps the secret half";
            return wrong(expected.to_string(), "none".to_string());
        }
        if self.recipients.len() > MOST_RECIPIENTS {
            let expected = format!("at most {MOST_RECIPIENTS} keys");
            return wrong(expected, self.recipients.len().to_string());
        }
        for recipient in &self.recipients {
            if let Err(problem) = Recipient::parse(recipient) {
                return wrong("public keys of age (age1…)".to_string(), problem);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::age::Identity;

    #[test]
    fn what_nobody_could_open_is_refused() {
        let key = Identity::make().unwrap();
        let public = key.recipient().to_string();
        let policy = |text: &str| -> AuditPolicy { serde_json::from_str(text).unwrap() };
        let check = |text: &str, reason: &str| {
            let problem = policy(text).check().unwrap_err().to_string();
            assert!(problem.contains("audit.recipients") && problem.contains(reason), "{problem}");
        };
        assert_eq!(policy("{}"), AuditPolicy::default());
        policy("{}").check().unwrap();
        policy(&format!(r#"{{"content": "both", "recipients": ["{public}"]}}"#)).check().unwrap();
        policy(&format!(r#"{{"recipients": ["{public}"]}}"#)).check().unwrap();
        for content in ["prompts", "answers", "both"] {
            check(&format!(r#"{{"content": "{content}"}}"#), "at least one");
        }
        let other = if public.ends_with('x') { "q" } else { "x" };
        check(&format!(r#"{{"recipients": ["{}{other}"]}}"#, &public[..61]), "letter");
        let many = vec![public; 17];
        check(&serde_json::json!({"recipients": many}).to_string(), "at most 16");
        let secret = key.secret_text().unwrap();
        let problem = policy(&serde_json::json!({"recipients": [secret]}).to_string()).check().unwrap_err();
        assert!(problem.to_string().contains("secret key") && !problem.to_string().contains(&secret));
        assert!(serde_json::from_str::<AuditPolicy>(r#"{"content": "all"}"#).is_err());
    }
}
