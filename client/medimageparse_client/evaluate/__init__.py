"""How accurate a running server is: cases, questions, metrics, tables (`medimageparse evaluate`)."""
