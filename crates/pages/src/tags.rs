//! The elements that matter, and how each of them takes part in structure.

/// An element's name as far as it matters; what is not listed is [`Tag::Inline`] or, with a hyphen, [`Tag::Custom`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Tag {
    Document,
    /// Characters, not an element.
    Text,
    Inline,
    Custom,
    Link,
    Break,
    Superscript,
    Paragraph,
    Division,
    Section,
    Article,
    Main,
    Heading(u8),
    Header,
    Footer,
    Navigation,
    Aside,
    Form,
    List,
    Item,
    DefinitionList,
    Term,
    Definition,
    Table,
    RowGroup,
    Row,
    Cell,
    Caption,
    Preformatted,
    Quote,
    Figure,
    FigureCaption,
    Rule,
    Time,
    Image,
    /// Buttons and input fields: their text is no content, their presence says something about what is around them.
    Control,
    Label,
    Dialog,
    /// Never content: scripts, styles, drawings, frames.
    Dropped,
    Title,
    Meta,
    LinkRelation,
    Script,
    Html,
    Head,
    Body,
}

impl Tag {
    /// By an element's name in lower case.
    pub fn of(name: &[u8]) -> Tag {
        match name {
            b"a" => Tag::Link,
            b"br" => Tag::Break,
            b"sup" => Tag::Superscript,
            b"p" => Tag::Paragraph,
            b"div" | b"center" | b"address" | b"details" | b"summary" | b"fieldset" | b"hgroup"
            | b"search" => Tag::Division,
            b"section" => Tag::Section,
            b"article" => Tag::Article,
            b"main" => Tag::Main,
            b"h1" | b"h2" | b"h3" | b"h4" | b"h5" | b"h6" => Tag::Heading(name[1] - b'0'),
            b"header" => Tag::Header,
            b"footer" => Tag::Footer,
            b"nav" => Tag::Navigation,
            b"aside" => Tag::Aside,
            b"form" => Tag::Form,
            b"ul" | b"ol" | b"menu" | b"dir" => Tag::List,
            b"li" => Tag::Item,
            b"dl" => Tag::DefinitionList,
            b"dt" => Tag::Term,
            b"dd" => Tag::Definition,
            b"table" => Tag::Table,
            b"tbody" | b"thead" | b"tfoot" => Tag::RowGroup,
            b"tr" => Tag::Row,
            b"td" | b"th" => Tag::Cell,
            b"caption" => Tag::Caption,
            b"pre" | b"listing" | b"xmp" | b"plaintext" => Tag::Preformatted,
            b"blockquote" => Tag::Quote,
            b"figure" => Tag::Figure,
            b"figcaption" => Tag::FigureCaption,
            b"hr" => Tag::Rule,
            b"time" => Tag::Time,
            b"img" | b"picture" => Tag::Image,
            b"button" | b"input" | b"select" | b"textarea" | b"option" | b"optgroup" | b"datalist" => {
                Tag::Control
            }
            b"label" | b"legend" => Tag::Label,
            b"dialog" => Tag::Dialog,
            b"style" | b"noscript" | b"template" | b"iframe" | b"object" | b"embed" | b"svg" | b"math"
            | b"canvas" | b"audio" | b"video" | b"map" | b"applet" | b"noembed" | b"noframes"
            | b"frameset" | b"progress" | b"meter" | b"rp" | b"rt" => Tag::Dropped,
            b"title" => Tag::Title,
            b"meta" => Tag::Meta,
            b"link" => Tag::LinkRelation,
            b"script" => Tag::Script,
            b"html" => Tag::Html,
            b"head" => Tag::Head,
            b"body" => Tag::Body,
            _ if name.contains(&b'-') => Tag::Custom,
            _ => Tag::Inline,
        }
    }

    /// Ends the paragraph before it and begins a new one.
    pub fn is_block(self) -> bool {
        !matches!(
            self,
            Tag::Text
                | Tag::Inline
                | Tag::Link
                | Tag::Break
                | Tag::Superscript
                | Tag::Time
                | Tag::Image
                | Tag::Control
                | Tag::Label
                | Tag::Dropped
                | Tag::Script
                | Tag::Title
                | Tag::Meta
                | Tag::LinkRelation
        )
    }

    /// An opening tag of these ends an open `<p>` (HTML standard, 13.2.6.4.7).
    pub fn closes_paragraph(self) -> bool {
        matches!(
            self,
            Tag::Paragraph
                | Tag::Division
                | Tag::Section
                | Tag::Article
                | Tag::Main
                | Tag::Heading(_)
                | Tag::Header
                | Tag::Footer
                | Tag::Navigation
                | Tag::Aside
                | Tag::Form
                | Tag::List
                | Tag::Item
                | Tag::DefinitionList
                | Tag::Term
                | Tag::Definition
                | Tag::Table
                | Tag::Preformatted
                | Tag::Quote
                | Tag::Figure
                | Tag::FigureCaption
                | Tag::Rule
                | Tag::Dialog
        )
    }

    /// No closing tag reaches through these.
    pub fn is_boundary(self) -> bool {
        matches!(self, Tag::Document | Tag::Table | Tag::Cell | Tag::Caption)
    }

    /// Never text of the page, whatever is in it.
    pub fn is_dropped(self) -> bool {
        matches!(
            self,
            Tag::Dropped
                | Tag::Control
                | Tag::Title
                | Tag::Meta
                | Tag::LinkRelation
                | Tag::Script
                | Tag::Dialog
                | Tag::FigureCaption
        )
    }
}

/// Elements without content and closing tag.
pub fn is_void(name: &[u8]) -> bool {
    matches!(
        name,
        b"area"
            | b"base"
            | b"br"
            | b"col"
            | b"embed"
            | b"hr"
            | b"img"
            | b"input"
            | b"link"
            | b"meta"
            | b"param"
            | b"source"
            | b"track"
            | b"wbr"
            | b"keygen"
            | b"basefont"
            | b"bgsound"
            | b"frame"
            | b"image"
    )
}
